"""slicer.parameterNodeWrapper (Base/Python/slicer/parameterNodeWrapper/): the subset that the module uses.

Fields of int, float, str, bool and MRML nodes on a real vtkMRMLScriptedModuleNode; `connectParametersToGui` by exact
pairs of widget and type. Serialised as in Slicer: numbers and texts as parameters, nodes as references.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Callable
from typing import Any

import slicer
from PySide6 import QtWidgets

from . import qmrml_widgets

SCALARS = (int, float, str, bool)


class WithinRange:
    """A validator: minimum <= value <= maximum (validators.py)."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: float) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within {self.minimum} and {self.maximum}")


class _Field:
    def __init__(self, name: str, annotation: Any, default: Any) -> None:
        self.name, self.default = name, default
        self.kind = typing.get_args(annotation)[0] if typing.get_origin(annotation) is typing.Annotated else annotation
        self.validators = [a for a in typing.get_args(annotation)[1:] if hasattr(a, "validate")]
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, slicer.vtkMRMLNode)
        if not self.is_node and self.kind not in SCALARS:
            raise TypeError(f"no serializer for {self.kind}")
        if default is None and not self.is_node:
            self.default = self.kind()

    def __get__(self, owner: Any, _kind: Any = None) -> Any:
        if owner is None:
            return self
        node = owner.parameterNode
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if text == "":
            return self.default
        return ast.literal_eval(text)

    def __set__(self, owner: Any, value: Any) -> None:
        if self.is_node:
            if value is not None and not isinstance(value, self.kind):
                raise TypeError(f"{self.name} must be a {self.kind.__name__}")
            owner.parameterNode.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, self.kind) and not (self.kind is float and isinstance(value, int)):
            raise TypeError(f"{self.name} must be {self.kind.__name__}, not {type(value).__name__}")
        for validator in self.validators:
            validator.validate(value)
        owner.parameterNode.SetParameter(self.name, repr(self.kind(value)))


def parameterNodeWrapper(cls: type) -> type:
    annotations = typing.get_type_hints(cls, include_extras=True)
    fields = {name: _Field(name, kind, getattr(cls, name, None)) for name, kind in annotations.items()}

    def __init__(self: Any, parameterNode: Any) -> None:
        object.__setattr__(self, "parameterNode", parameterNode)
        object.__setattr__(self, "_bindings", {})

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if name not in fields:
            raise AttributeError(f"the parameter node has no '{name}'")
        fields[name].__set__(self, value)

    def add_observer(self: Any, event: Any, callback: Callable[..., Any]) -> int:
        return int(self.parameterNode.AddObserver(event, callback))

    members = {
        **fields,
        "__init__": __init__,
        "__setattr__": __setattr__,
        "AddObserver": add_observer,
        "RemoveObserver": lambda self, tag: self.parameterNode.RemoveObserver(tag),
        "Modified": lambda self: self.parameterNode.Modified(),
        "StartModify": lambda self: self.parameterNode.StartModify(),
        "EndModify": lambda self, was: self.parameterNode.EndModify(was),
        "connectParametersToGui": _connect_parameters,
        "disconnectGui": _disconnect_gui,
        "__annotations__": annotations,
    }
    return type(cls.__name__, (), members)


# widget class -> (property read, setter, signal, types of the field); exact pairs only, as in Slicer's guiConnectors
CONNECTORS: dict[type, tuple[str, str, str, tuple[type, ...]]] = {
    QtWidgets.QCheckBox: ("checked", "setChecked", "toggled(bool)", (bool,)),
    QtWidgets.QPushButton: ("checked", "setChecked", "toggled(bool)", (bool,)),
    QtWidgets.QSpinBox: ("value", "setValue", "valueChanged(int)", (int,)),
    QtWidgets.QSlider: ("value", "setValue", "valueChanged(int)", (int,)),
    QtWidgets.QDoubleSpinBox: ("value", "setValue", "valueChanged(double)", (float,)),
    QtWidgets.QLineEdit: ("text", "setText", "textChanged(QString)", (str,)),
    qmrml_widgets.qMRMLNodeComboBox: ("", "setCurrentNode", "currentNodeChanged(vtkMRMLNode*)", ()),
}


def _connect_parameters(self: Any, widgets: dict[str, Any]) -> int:
    links = []
    for name, widget in widgets.items():
        field = getattr(type(self), name, None)
        if not isinstance(field, _Field):
            raise ValueError(f"no parameter '{name}'")  # noqa: TRY004 (as Slicer does)
        read, setter, signal, kinds = CONNECTORS.get(type(widget), ("", "", "", (object,)))
        if not signal or (field.kind not in kinds if kinds else not field.is_node):
            raise RuntimeError(f"Unable to create GUI connector from {type(widget).__name__} to {field.kind}")
        for validator in field.validators:
            widget.setRange(validator.minimum, validator.maximum)

        def to_node(*, widget: Any = widget, read: str = read, name: str = name) -> None:
            setattr(self, name, getattr(widget, read) if read else widget.currentNode())

        def to_widget(*, widget: Any = widget, setter: str = setter, name: str = name) -> None:
            getattr(widget, setter)(getattr(self, name))

        to_widget()
        widget.connect(signal, to_node)
        links.append((widget, signal, to_node, to_widget))

    def update(_caller: Any, _event: str) -> None:
        for _widget, _signal, _to_node, to_widget in links:
            to_widget()

    tag = int(self.parameterNode.AddObserver("ModifiedEvent", update))
    self._bindings[tag] = links
    return tag


def _disconnect_gui(self: Any, tag: int) -> None:
    for widget, signal, to_node, _to_widget in self._bindings.pop(tag, []):
        widget.disconnect(signal, to_node)
    self.parameterNode.RemoveObserver(tag)
