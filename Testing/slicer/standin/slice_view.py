"""A slice view drawn off-screen by the real displayable managers (qMRMLSliceWidget.h)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

SIZE = 500  # pixels a side


class SliceWidget:
    """One slice view: its MRML slice logic, displayable managers and an off-screen window."""

    def __init__(self, name: str, orientation: str, application: Any) -> None:
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetSize(SIZE, SIZE)
        renderer = vtk.vtkRenderer()
        self._window.AddRenderer(renderer)
        renderer.GetActiveCamera().ParallelProjectionOn()
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        image = vtk.vtkActor2D()
        image.SetMapper(self._mapper)
        image.GetProperty().SetDisplayLocationToBackground()
        renderer.AddActor2D(image)  # before the managers, else the segments' fill is hidden behind it
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(application.slice_factory, renderer)
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application.applicationLogic())
        self._logic.SetMRMLScene(slicer.mrmlScene)
        node = self._logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        self._group.SetMRMLDisplayableNode(node)
        application.applicationLogic().GetSliceLogics().AddItem(self._logic)
        style = slicer.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(self._logic)
        style.SetDisplayableManagers(self._group)
        style.SetInteractor(self._interactor)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())  # does nothing by itself
        self._style = style
        self._logic.ResizeSliceNode(SIZE, SIZE)

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()

    # -- what a person does ----------------------------------------------------------------------------------------
    def render(self) -> None:
        """Draws the view."""
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())
        if self._logic.GetImageDataConnection() is not None:
            self._mapper.GetInputAlgorithm().Update()
        self._window.Render()

    def pixel_of(self, ras: Any) -> tuple[int, int]:
        """Where a point in RAS is on the screen (from the lower left)."""
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.mrmlSliceNode().GetXYToRAS(), matrix)
        x, y, _z, _w = matrix.MultiplyPoint((*ras, 1.0))
        return round(x), round(y)

    def _event(self, name: str, at: tuple[int, int]) -> None:
        self._interactor.SetEventInformation(at[0], at[1])
        self._interactor.InvokeEvent(name)

    def click(self, ras: Any) -> None:
        """A click with the left button at a point."""
        at = self.pixel_of(ras)
        for event in ("EnterEvent", "MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
            self._event(event, at)

    def drag(self, start: Any, end: Any, *, steps: int = 5, between: Any = None) -> None:
        """The left button pressed at one point and released at another; `between` is called at each step."""
        first, last = np.array(self.pixel_of(start)), np.array(self.pixel_of(end))
        self._event("EnterEvent", tuple(first))
        self._event("MouseMoveEvent", tuple(first))
        self._event("LeftButtonPressEvent", tuple(first))
        for step in range(1, steps + 1):
            self._event("MouseMoveEvent", tuple(int(v) for v in first + (last - first) * step // steps))
            if between is not None:
                between()
        self._event("LeftButtonReleaseEvent", tuple(last))

    def picture(self) -> np.ndarray:
        """uint8 `[row, column, 3]`: what is on the screen."""
        self.render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, 3)[::-1].copy()

    def save(self, file: Path) -> None:
        """Writes what is on the screen as PNG."""
        from PIL import Image

        Image.fromarray(self.picture()).save(file)

    def close(self) -> None:
        """Lets go of the window."""
        self._group.SetMRMLDisplayableNode(None)
        self._window.Finalize()
