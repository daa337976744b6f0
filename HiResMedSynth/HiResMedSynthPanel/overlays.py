"""Overlays: the prior as a coloured foreground layer, the danger map as a segmentation with its classes."""

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _
from vtk.util.numpy_support import numpy_to_vtk

ROLE = "HiResMedSynth.role"
COLORS = (  # of the danger classes, in the order of their labels
    (0.90, 0.35, 0.30), (0.95, 0.65, 0.25), (0.55, 0.45, 0.85), (0.30, 0.60, 0.90), (0.85, 0.45, 0.70),
    (0.45, 0.75, 0.75), (0.75, 0.70, 0.35), (0.60, 0.60, 0.60), (0.95, 0.50, 0.50), (0.50, 0.80, 0.50),
)  # fmt: skip
EVIDENT = "outside"  # classes that anyone sees are filled but faintly
HEAT = ((0, 0.05, 0.05, 0.30), (35, 0.50, 0.10, 0.50), (65, 0.95, 0.45, 0.15), (100, 1.0, 0.95, 0.40))


def color_of(label):
    """RGB (0..1) of a danger class."""
    return COLORS[(int(label) - 1) % len(COLORS)]


def scalars_of(array):
    """VTK scalars over the same memory as an array (which they keep alive)."""
    return numpy_to_vtk(np.ascontiguousarray(array).reshape(-1), deep=False)


def image_data_of(array):
    """VTK image over the same memory as an array `[slice, row, column]`."""
    data = vtk.vtkImageData()
    data.SetDimensions(array.shape[::-1])
    data.GetPointData().SetScalars(scalars_of(array))
    return data


def show_danger(node, image, labels, names):
    """Fills a segmentation node (made where it is None) with the classes of a danger map; returns it.

    All classes share one labelmap, so nothing is copied per class.
    """
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("Danger mask"))
        node.SetAttribute(ROLE, "danger")
        node.CreateDefaultDisplayNodes()
    labelmap = slicer.vtkOrientedImageData()
    depth, rows, columns = labels.shape
    first = image.slice_index or 0
    labelmap.SetExtent(0, columns - 1, 0, rows - 1, first, first + depth - 1)
    labelmap.GetPointData().SetScalars(scalars_of(labels))
    labelmap.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(image.ijk_to_ras))
    was = node.StartModify()
    segmentation = node.GetSegmentation()
    segmentation.RemoveAllSegments()
    node.SetReferenceImageGeometryParameterFromVolumeNode(image.node)
    node.SetAndObserveTransformNodeID(image.node.GetTransformNodeID())
    representation = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    segmentation.SetSourceRepresentationName(representation)
    for label, name in sorted(names.items(), key=lambda item: int(item[0])):
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(*color_of(label))
        segment.SetLabelValue(int(label))
        segment.AddRepresentation(representation, labelmap)
        segmentation.AddSegment(segment, f"danger-{label}")
        if name.startswith(EVIDENT):
            node.GetDisplayNode().SetSegmentOpacity2DFill(f"danger-{label}", 0.15)
    node.EndModify(was)
    return node


def show_prior(node, image, percent):
    """Fills a volume node (made where it is None) with the prior in percent of its highest value; returns it."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", _("Prior heatmap"))
        node.SetAttribute(ROLE, "prior")
    matrix = image.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, 2] * (image.slice_index or 0)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    node.SetAndObserveTransformNodeID(image.node.GetTransformNodeID())
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()  # before there are pixels: else it makes a histogram of them all
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_heat_colors().GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(0, 100)
    display.SetInterpolate(True)
    node.SetAndObserveImageData(image_data_of(percent))
    return node


def style_danger(node, *, visible, opacity):
    """Shows or hides the danger mask; opacity 0..1."""
    display = node.GetDisplayNode() if node is not None else None
    if display is None:
        return
    was = display.StartModify()
    display.SetVisibility(visible)
    display.SetOpacity2DFill(0.8 * opacity)
    display.SetOpacity2DOutline(min(1.0, 1.5 * opacity))
    display.EndModify(was)


def style_prior(node, *, threshold):
    """Hides what is below the threshold (percent of the highest value)."""
    display = node.GetDisplayNode() if node is not None else None
    if display is None:
        return
    was = display.StartModify()
    display.SetAutoThreshold(False)
    display.SetThreshold(threshold, 100)
    display.SetApplyThreshold(True)
    display.EndModify(was)


def _heat_colors():
    """The colour node of the heatmap, one a scene."""
    found = slicer.mrmlScene.GetFirstNodeByName("HiResMedSynth heat")
    if found is not None:
        return found
    node = slicer.vtkMRMLProceduralColorNode()
    node.SetName("HiResMedSynth heat")
    node.SetHideFromEditors(True)
    node = slicer.mrmlScene.AddNode(node)
    transfer = node.GetColorTransferFunction()
    for value, red, green, blue in HEAT:
        transfer.AddRGBPoint(value, red, green, blue)
    return node


class Layers:
    """What the slice views showed before us, and what they show now."""

    def __init__(self):
        self._before = None

    def show(self, background, foreground, opacity):
        """Shows a background and, over it, a foreground (None: nothing)."""
        if self._before is None:
            self._before = [
                (composite, composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(),
                 composite.GetForegroundOpacity())
                for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
            ]  # fmt: skip
        slicer.util.setSliceViewerLayers(background=background, foreground=foreground, foregroundOpacity=opacity)

    def restore_foreground(self):
        """Takes our foreground away again; the background stays, as after any load."""
        if self._before is None:
            return
        for composite, _background, foreground, opacity in self._before:
            known = foreground and slicer.mrmlScene.GetNodeByID(foreground)
            composite.SetForegroundVolumeID(foreground if known else None)
            composite.SetForegroundOpacity(opacity)
        self._before = None
