"""slicer.app, slicer.modules and slicer.mrmlScene (Base/QTApp/qSlicerApplication.h, qSlicerLayoutManager.h)."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .dicom import DICOMDatabase
from .scripted_module import Description, ModulePanel
from .slice_view import SliceWidget

SLICE_MANAGERS = (  # qMRMLSliceView.cxx and the loadable modules register these
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLScalarBarDisplayableManager",
)
VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class Modules:
    """slicer.modules: loadable modules by lower-case name, scripted ones as they are loaded."""


class LayoutManager:
    """The slice views (qSlicerLayoutManager.h)."""

    def __init__(self, application: Application) -> None:
        self._widgets = {name: SliceWidget(name, kind, application) for name, kind in VIEWS.items()}

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._widgets)

    def sliceWidget(self, name: str) -> SliceWidget:
        return self._widgets[name]

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    def close(self) -> None:
        for widget in self._widgets.values():
            widget.close()


class _Signals(QtCore.QObject):
    startupCompleted = QtCore.Signal()
    aboutToQuit = QtCore.Signal()


class Application:
    """The application object; QApplication itself is made once a process."""

    def __init__(self, folder: Path) -> None:
        self._qt = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        self._signals = _Signals()
        self.connect, self.disconnect = self._signals.connect, self._signals.disconnect
        self._folder = folder
        QtCore.QCoreApplication.setOrganizationName("NA-MIC")
        QtCore.QCoreApplication.setApplicationName("Slicer")
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
        QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, str(folder))
        self._settings = QtCore.QSettings()
        scene = slicer.vtkMRMLScene()
        slicer.mrmlScene = self._scene = scene
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        self._logic = slicer.vtkSlicerApplicationLogic()
        self._logic.SetMRMLScene(scene)
        self._logic.GetColorLogic().SetMRMLScene(scene)
        self._logic.GetColorLogic().AddDefaultColorNodes()
        self._logic.SetSliceLogics(vtk.vtkCollection())
        self._logic.SetViewLogics(vtk.vtkCollection())
        self._logic.SetTemporaryPath(str(folder))
        self._cache, self._io = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        self._cache.SetRemoteCacheDirectory(str(folder))
        self._io.SetCacheManager(self._cache)
        scene.SetCacheManager(self._cache)
        scene.SetDataIOManager(self._io)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self.slice_factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        self.slice_factory.SetMRMLApplicationLogic(self._logic)
        for name in SLICE_MANAGERS:
            if not self.slice_factory.IsDisplayableManagerRegistered(name):
                self.slice_factory.RegisterDisplayableManager(name)
        slicer.modules = Modules()
        for name, kind in {
            "markups": slicer.vtkSlicerMarkupsLogic,
            "segmentations": slicer.vtkSlicerSegmentationsModuleLogic,
            "subjecthierarchy": slicer.vtkSlicerSubjectHierarchyModuleLogic,
            "colors": slicer.vtkMRMLColorLogic,
            "volumes": slicer.vtkSlicerVolumesLogic,
        }.items():
            logic = kind()
            logic.SetMRMLApplicationLogic(self._logic)
            logic.SetMRMLScene(scene)
            self._logic.SetModuleLogic({"subjecthierarchy": "SubjectHierarchy"}.get(name, name.capitalize()), logic)
            setattr(slicer.modules, name, SimpleNamespace(logic=lambda logic=logic: logic))
        slicer.app = self
        slicer.dicomDatabase = DICOMDatabase()
        self._layout = LayoutManager(self)
        self._modules: dict[str, Path] = {}

    # -- what modules use ------------------------------------------------------------------------------------------
    majorVersion, minorVersion, applicationName = 5, 12, "Slicer"

    def applicationLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return self._scene

    def layoutManager(self) -> LayoutManager:
        return self._layout

    def userSettings(self) -> QtCore.QSettings:
        return self._settings

    def settings(self) -> QtCore.QSettings:
        return self._settings

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        self._qt.processEvents()

    def setOverrideCursor(self, cursor: Any) -> None:
        self._qt.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        self._qt.restoreOverrideCursor()

    def topLevelWidgets(self) -> list[Any]:
        return self._qt.topLevelWidgets()

    def pauseRender(self) -> None: ...

    def resumeRender(self) -> None: ...

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        environment = QtCore.QProcessEnvironment()
        for name, value in os.environ.items():
            environment.insert(name, value)
        return environment

    # -- what a person does ----------------------------------------------------------------------------------------
    def load(self, module_file: Path) -> Any:
        """A scripted module's panel, made as Slicer makes it: description, then widget, then setup()."""
        name = module_file.stem
        self._modules[name] = module_file
        if str(module_file.parent) not in sys.path:
            sys.path.insert(0, str(module_file.parent))
        return self._make(importlib.import_module(name), name, module_file)

    def _make(self, module: Any, name: str, file: Path, panel: ModulePanel | None = None) -> Any:
        description = Description(name, file)
        described = getattr(module, name)(description)
        setattr(slicer.modules, name.lower(), SimpleNamespace(path=str(file), name=name, parent=described, title=name))
        panel = panel or ModulePanel(name)
        widget = getattr(module, f"{name}Widget")(panel)
        widget.setup()
        panel.setMRMLScene(self._scene)
        return widget

    def reload(self, name: str) -> Any:
        """As slicer.util.reloadScriptedModule: old children hidden, cleanup, setup in the same parent, no enter."""
        old = getattr(slicer.modules, f"{name}Widget")
        panel = old.parent
        for child in panel.findChildren(QtWidgets.QWidget):
            child.hide()
        old.cleanup()
        while panel.layout().count():
            panel.layout().takeAt(0)
        return self._make(importlib.reload(sys.modules[name]), name, self._modules[name], panel)

    def enter(self, widget: Any) -> None:
        """Selects the module."""
        widget.parent._entered = True
        widget.enter()

    def leave(self, widget: Any) -> None:
        """Selects another module."""
        widget.parent._entered = False
        widget.exit()

    def close_scene(self) -> None:
        """File > Close scene."""
        self._scene.Clear(0)

    def save_scene(self, file: Path) -> None:
        """File > Save, as one .mrb."""
        assert self._scene.WriteToMRB(str(file), None)

    def load_scene(self, file: Path) -> None:
        """File > Add data, a .mrb into a cleared scene."""
        messages = slicer.vtkMRMLMessageCollection()
        assert self._scene.ReadFromMRB(str(file), True, messages), messages.GetAllMessagesAsString()

    def close(self) -> None:
        """Quits."""
        self._signals.aboutToQuit.emit()
        self._layout.close()
