"""slicer.ScriptedLoadableModule (Base/Python/slicer/ScriptedLoadableModule.py): the four base classes."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any

import slicer
from PySide6.QtCore import Property
from PySide6.QtWidgets import QVBoxLayout, QWidget


class Description:
    """The `parent` that a module describes itself to (qSlicerScriptedLoadableModule.h)."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path, self.title = name, str(path), name
        self.categories: list[str] = []
        self.dependencies: list[str] = []
        self.contributors: list[str] = []
        self.helpText = self.acknowledgementText = ""


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self) -> str:
        return ""


class ModulePanel(QWidget):
    """The widget that holds a module's panel (qSlicerScriptedLoadableModuleWidget.h)."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setLayout(QVBoxLayout())
        self._entered = False

    isEntered = Property(bool, lambda self: self._entered)

    def setMRMLScene(self, scene: Any) -> None:
        for child in self.findChildren(QWidget):
            if hasattr(child, "setMRMLScene"):
                child.setMRMLScene(scene)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent if parent is not None else ModulePanel(self.moduleName)
        self.layout = self.parent.layout()
        setattr(slicer.modules, f"{self.moduleName}Widget", self)

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None: ...

    def setupDeveloperSection(self) -> None: ...

    def enter(self) -> None: ...

    def exit(self) -> None: ...

    def cleanup(self) -> None: ...

    def onReload(self) -> None:
        slicer.app.reload(self.moduleName)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetModuleName(self.moduleName)
            node.SetName(self.moduleName)
            node = scene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.messageDelay = 0

    def delayDisplay(self, message: str, msec: int | None = None, **_options: Any) -> None:
        slicer.app.processEvents()
