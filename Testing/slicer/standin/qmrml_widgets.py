"""The `slicer.qMRML*` and `slicer.qSlicer*` widgets that the module uses (their headers: names.py)."""

from __future__ import annotations

from typing import Any

import slicer
from PySide6.QtCore import Property, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QToolButton, QWidget

NODE_ADDED, NODE_REMOVED = slicer.vtkMRMLScene.NodeAddedEvent, slicer.vtkMRMLScene.NodeRemovedEvent


class qMRMLNodeComboBox(QWidget):
    """A list of the scene's nodes of some types (qMRMLNodeComboBox.h)."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._types: list[str] = []
        self._none, self._ids, self._tags = False, [], []
        self._add, self._remove, self._rename, self._attributes = True, True, False, []
        self._children = True
        self._box = QComboBox(self)
        self._box.setSizeAdjustPolicy(QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._box.setMinimumContentsLength(12)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self.setLayout(row)
        self._box.currentIndexChanged.connect(lambda _index: self.currentNodeChanged.emit(self.currentNode()))

    def _set_types(self, types: list[str]) -> None:
        self._types = list(types)
        self._fill()

    def _set_none(self, enabled: bool) -> None:
        self._none = enabled
        self._fill()

    nodeTypes = Property("QStringList", lambda self: self._types, _set_types)
    noneEnabled = Property(bool, lambda self: self._none, _set_none)
    addEnabled = Property(bool, lambda self: self._add, lambda self, on: setattr(self, "_add", on))
    removeEnabled = Property(bool, lambda self: self._remove, lambda self, on: setattr(self, "_remove", on))
    renameEnabled = Property(bool, lambda self: self._rename, lambda self, on: setattr(self, "_rename", on))
    showChildNodeTypes = Property(bool, lambda self: self._children, lambda self, on: setattr(self, "_children", on))
    currentNodeID = Property(str, lambda self: self.currentNode().GetID() if self.currentNode() is not None else "")

    def addAttribute(self, node_type: str, name: str, value: str | None = None) -> None:
        self._attributes.append((node_type, name, value))
        self._fill()

    def setMRMLScene(self, scene: Any) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        self._tags = [] if scene is None else [scene.AddObserver(e, self._on_scene) for e in (NODE_ADDED, NODE_REMOVED)]
        self._fill()

    def mrmlScene(self) -> Any:
        return self._scene

    def _on_scene(self, _caller: Any, _event: str) -> None:
        self._fill()

    def _fits(self, node: Any) -> bool:
        return node.GetClassName() in self._types or (self._children and any(map(node.IsA, self._types)))

    def _offered(self) -> list[Any]:
        nodes = (
            [] if self._scene is None else [self._scene.GetNthNode(k) for k in range(self._scene.GetNumberOfNodes())]
        )
        found = [n for n in nodes if self._fits(n) and not n.GetHideFromEditors()]
        for node_type, name, value in self._attributes:
            found = [
                n for n in found
                if not n.IsA(node_type) or (n.GetAttribute(name) if value is None else n.GetAttribute(name) == value)
            ]  # fmt: skip
        return found

    def _fill(self) -> None:
        kept = self._ids[self._box.currentIndex] if 0 <= self._box.currentIndex < len(self._ids) else None
        nodes = self._offered()
        self._box.blockSignals(True)
        self._box.clear()
        self._ids = []
        if self._none:
            self._box.addItem("None")
            self._ids.append(None)
        for node in nodes:
            self._box.addItem(node.GetName())
            self._ids.append(node.GetID())
        index = self._ids.index(kept) if kept in self._ids else (0 if self._ids else -1)
        self._box.setCurrentIndex(index)
        self._box.blockSignals(False)
        now = self._ids[index] if index >= 0 else None
        if now != kept:
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self) -> Any:
        index = self._box.currentIndex
        if self._scene is None or not 0 <= index < len(self._ids) or self._ids[index] is None:
            return None
        return self._scene.GetNodeByID(self._ids[index])

    def setCurrentNode(self, node: Any) -> None:
        identifier = None if node is None else node.GetID()
        if identifier in self._ids:
            self._box.setCurrentIndex(self._ids.index(identifier))
        elif node is None:
            self._box.setCurrentIndex(-1)

    def nodeCount(self) -> int:
        return len(self._offered())


class qSlicerMarkupsPlaceWidget(QWidget):
    """The button that puts the views into place mode for one markups node (qSlicerMarkupsPlaceWidget.h)."""

    activeMarkupsPlaceModeChanged = Signal(bool)
    ShowPlaceMultipleMarkupsOption, HidePlaceMultipleMarkupsOption = 0, 1
    ForcePlaceSingleMarkup, ForcePlaceMultipleMarkups = 2, 3

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._node, self._scene, self._multiple, self._buttons = None, None, 0, True
        self._button = QToolButton(self)
        self._button.setText("Place")
        self._button.setCheckable(True)
        self._button.toggled.connect(self._toggle)
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._button)
        self.setLayout(row)

    placeModeEnabled = Property(bool, lambda self: self._button.checked, lambda self, on: self._button.setChecked(on))
    placeMultipleMarkups = Property(
        int, lambda self: self._multiple, lambda self, kind: setattr(self, "_multiple", kind)
    )
    buttonsVisible = Property(
        bool, lambda self: self._buttons, lambda self, on: (setattr(self, "_buttons", on), self._button.setVisible(on))
    )
    deleteAllControlPointsOptionVisible = Property(bool, lambda self: False, lambda self, on: None)

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def setCurrentNode(self, node: Any) -> None:
        self._node = node
        self._button.setEnabled(node is not None)

    def currentNode(self) -> Any:
        return self._node

    def placeButton(self) -> QToolButton:
        return self._button

    def setPlaceModeEnabled(self, on: bool) -> None:
        self._button.setChecked(on)

    def _toggle(self, on: bool) -> None:
        if self._scene is None or self._node is None:
            return
        interaction = self._scene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        selection = self._scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        if on:
            selection.SetReferenceActivePlaceNodeClassName(self._node.GetClassName())
            selection.SetActivePlaceNodeID(self._node.GetID())
            interaction.SetPlaceModePersistence(1 if self._multiple == 3 else 0)
            interaction.SetCurrentInteractionMode(interaction.Place)
        else:
            interaction.SetCurrentInteractionMode(interaction.ViewTransform)
        self.activeMarkupsPlaceModeChanged.emit(on)


NAMES = {"qMRMLNodeComboBox": qMRMLNodeComboBox, "qSlicerMarkupsPlaceWidget": qSlicerMarkupsPlaceWidget}
