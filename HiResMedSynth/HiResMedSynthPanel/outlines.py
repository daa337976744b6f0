"""What a radiologist drew, as voxels of an image: the box of an ROI, the mask of a segment."""

import itertools

import numpy as np
import slicer
import vtk


def roi_outline(node, image):
    """((slice, row, column) corner, True in the box) of an ROI; None where it doesn't meet the image."""
    box = vtk.vtkMatrix4x4()
    box.DeepCopy(node.GetObjectToWorldMatrix())
    half = [size / 2 for size in node.GetSize()]
    corners = [
        box.MultiplyPoint((sx * half[0], sy * half[1], sz * half[2], 1.0))[:3]
        for sx, sy, sz in itertools.product((-1, 1), repeat=3)
    ]
    places = np.array([image.place_of(corner) for corner in corners])
    first, last = np.round(places.min(axis=0), 3), np.round(places.max(axis=0), 3)  # edges, not centres, of voxels
    low = np.floor(first + 0.5)
    high = np.maximum(np.ceil(last - 0.5) + 1, low + 1)
    low, high = np.maximum(low, 0).astype(int), np.minimum(high, image.pixels.shape).astype(int)
    if (high <= low).any():
        return None
    return tuple(int(value) for value in low), np.ones(tuple(high - low), dtype=bool)


def segment_outline(node, image, segment_id=None):
    """The same of a segment (the first where none is named), on the image's voxels."""
    segmentation = node.GetSegmentation()
    if segmentation.GetNumberOfSegments() == 0:
        return None
    name = segment_id or segmentation.GetNthSegmentID(0)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(node, name, image.node)
    if mask is None:
        return None
    if image.slice_index is not None:
        mask = mask[image.slice_index : image.slice_index + 1]
    filled = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not all(found.size for found in filled):
        return None
    region = tuple(slice(found[0], found[-1] + 1) for found in filled)
    return tuple(int(found[0]) for found in filled), mask[region] > 0
