"""`qt` as PythonQt offers it, over PySide6: properties are attributes, signals connect by signature.

PythonQt (PythonQtInstanceWrapper.cpp): reading a Qt property gives its value; setting an attribute that is no property
of a C++ object raises; `connect("name(types)", callable)` passes as many arguments as the callable takes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

_get = QtCore.QObject.__getattribute__
VIRTUAL = {"sizeHint", "minimumSizeHint"}  # PySide asks for these while it lays out; as properties they'd ask again
_property, _set_property = QtCore.QObject.property, QtCore.QObject.setProperty
_meta_object = QtCore.QObject.metaObject


def closed_module(name: str, names: Mapping[str, Any]) -> ModuleType:
    """A module with these names and no others."""
    module = ModuleType(name)
    module.__dict__.update(names)
    return module


class _Namespace(ModuleType):
    """QtCore, QtGui and QtWidgets under one name."""

    def __getattr__(self, name: str) -> Any:
        for part in (QtWidgets, QtGui, QtCore):
            if hasattr(part, name):
                return getattr(part, name)
        raise AttributeError(f"qt has no '{name}'")


def namespace() -> ModuleType:
    """The module `qt`; from now on every QObject of this process behaves as under PythonQt."""
    for part in (QtCore, QtGui, QtWidgets):
        for kind in (getattr(part, name) for name in dir(part)):
            if isinstance(kind, type) and issubclass(kind, QtCore.QObject):
                kind.__getattribute__, kind.__setattr__ = _read, _write  # each PySide class has its own
    return _Namespace("qt")


def _is_property(instance: QtCore.QObject, name: str) -> bool:
    return not name.startswith("_") and name not in VIRTUAL and _meta_object(instance).indexOfProperty(name) >= 0


def _read(self: QtCore.QObject, name: str) -> Any:
    if name == "connect":
        return lambda signature, slot: _connect(self, signature, slot)
    if name == "disconnect":
        return lambda signature, slot: _disconnect(self, signature, slot)
    if name == "delete":
        return _get(self, "deleteLater")
    if _is_property(self, name):
        return _property(self, name)
    return _get(self, name)


def _write(self: QtCore.QObject, name: str, value: Any) -> None:
    if _is_property(self, name):
        if not _set_property(self, name, value):
            raise ValueError(f"{type(self).__name__}.{name} can't be {value!r}")
    elif name.startswith("_"):
        self.__dict__[name] = value
    else:
        raise AttributeError(f"'{type(self).__name__}' has no property '{name}'")


_connections: dict[tuple[int, str, Any], Callable[..., None]] = {}


def _signal(sender: QtCore.QObject, signature: str) -> Any:
    name, _, arguments = signature.partition("(")
    signal = _get(sender, name)
    if not isinstance(signal, QtCore.SignalInstance):
        raise AttributeError(f"'{type(sender).__name__}' has no signal '{signature}'")  # noqa: TRY004
    meta = _meta_object(sender)
    normal = QtCore.QMetaObject.normalizedSignature(signature).data().decode()
    known = [meta.method(k) for k in range(meta.methodCount())]
    same = [m for m in known if m.name().data().decode() == name]
    fits = [m for m in same if m.methodSignature().data().decode() == normal]
    declared = any("PyObject" in m.methodSignature().data().decode() for m in same)  # a signal of a stand-in widget
    if not fits and not declared:
        offered = ", ".join(sorted({m.methodSignature().data().decode() for m in same}))
        raise AttributeError(f"'{type(sender).__name__}' has no signal '{signature}', only {offered}")
    if len(same) > 1 and arguments.rstrip(")"):
        kind = {"int": int, "QString": str, "double": float, "bool": bool}.get(arguments.rstrip(")"))
        if kind is not None:
            signal = signal[kind]
    return signal


def _taken(slot: Callable[..., Any], most: int) -> int:
    """How many positional arguments a slot is called with."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except (TypeError, ValueError):
        return most
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return most
    return min(most, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))


def _connect(sender: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    inside = signature.partition("(")[2].rstrip(")")
    count = _taken(slot, len(inside.split(",")) if inside else 0)

    def receive(*arguments: Any) -> None:
        slot(*arguments[:count])

    _connections[id(sender), signature, slot] = receive
    _signal(sender, signature).connect(receive)
    return True


def _disconnect(sender: QtCore.QObject, signature: str, slot: Callable[..., Any]) -> bool:
    receive = _connections.pop((id(sender), signature, slot), None)
    if receive is None:
        return False
    _signal(sender, signature).disconnect(receive)
    return True
