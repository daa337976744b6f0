"""SlicerImage: a volume node as the backend takes it: pixels, geometry in LPS, allow-listed DICOM tags."""

import dataclasses
import json

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from HiResMedSynthLib.service.protocol import ImageHeader

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
HELD_AS = {"int8": "int16", "uint32": "int32", "float64": "float32"}
MADE = "HiResMedSynth.made"  # attribute of images that the backend made: no real ones
IS_MADE = "the source is itself synthetic (made by HiResMedSynth)"  # the library looks for its words: no translation
LOADED = "HiResMedSynth.header"  # what an annotation folder tells of an image besides its geometry, as JSON
KEPT = (
    "modality", "units", "pixel_spacing_mm", "spacing_source", "photometric", "rescale", "bits_stored",
    "stored_signed", "padding_value", "window", "oddities",
)  # fmt: skip
AIR_HU = -500  # values below this: taken for CT, as the command line does with files that don't say


class SlicerImage:
    """What is worked on: the whole volume, or one slice of it.

    Args:
        node: the scalar volume node.
        slice_index: work on this slice only, or None.
        tags: one mapping a slice of the whole volume (DICOM keyword -> text), or ().
        assumed_spacing: (rows, columns) in mm, where the image has no spacing of its own (0: it has; the same).
    """

    def __init__(self, node, *, slice_index=None, tags=(), assumed_spacing=(0.0, 0.0)):
        self.node, self.slice_index = node, slice_index
        self.ijk_to_ras = slicer.util.arrayFromVTKMatrix(_matrix_of(node))
        array = slicer.util.arrayFromVolume(node)
        self.shape = array.shape
        self.pixels = array if slice_index is None else array[slice_index : slice_index + 1]
        chosen = tags if slice_index is None else tags[slice_index : slice_index + 1]
        self.header = self._header(chosen, assumed_spacing)
        self._name = None

    def send(self, client):
        """The name under which the backend holds it; sends it where it doesn't hold it yet."""
        self._name = client.send_image(self._held(), self.header, name=self._name)
        return self._name

    def doubt_spacing(self):
        """Takes a spacing that may be Slicer's guess for unknown: nothing in mm is told of such an image."""
        if _doubtful_spacing() in self.header.oddities:
            self.header = dataclasses.replace(self.header, pixel_spacing_mm=None, spacing_source="unknown")

    def place_of(self, world):
        """(slice, row, column) of a point in world RAS, in the indices of what is worked on."""
        local = _to_local(self.node, world)
        i, j, k, _one = np.linalg.inv(self.ijk_to_ras) @ [*local, 1.0]
        return (0.0 if self.slice_index is not None else float(k), float(j), float(i))

    def slice_of(self, world):
        """Index of the volume's slice that a point lies in."""
        local = _to_local(self.node, world)
        return round(float((np.linalg.inv(self.ijk_to_ras) @ [*local, 1.0])[2]))

    def world_of(self, place):
        """World RAS of (slice, row, column)."""
        k = place[0] + (self.slice_index or 0)
        local = (self.ijk_to_ras @ [place[2], place[1], k, 1.0])[:3]
        return _to_world(self.node, local)

    def region_of(self, corner, shape):
        """Slices of the whole volume that a patch at `corner` covers."""
        start = (corner[0] + (self.slice_index or 0), corner[1], corner[2])
        return tuple(slice(low, low + size) for low, size in zip(start, shape, strict=False))

    def _held(self):
        pixels = self.pixels
        if self.header.tags:
            return np.ascontiguousarray(pixels)
        return np.ascontiguousarray(pixels, dtype=HELD_AS.get(pixels.dtype.name, pixels.dtype.name))

    def _header(self, tags, assumed_spacing):
        to_lps = RAS_TO_LPS @ self.ijk_to_ras
        spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
        first = 0 if self.slice_index is None else self.slice_index
        positions = [(to_lps @ [0, 0, first + k, 1])[:3].tolist() for k in range(len(self.pixels))]
        modality = tags[0].get("Modality", "") if tags else ""
        lowest = self.pixels[len(self.pixels) // 2].min()
        is_ct = modality == "CT" or (not modality and lowest <= AIR_HU)
        rows_mm, columns_mm = assumed_spacing
        assumed = rows_mm > 0 and not is_ct
        doubtful = not (tags or is_ct or assumed) and set(spacing[:2]) == {1.0}
        header = ImageHeader(
            modality=modality or ("CT" if is_ct else "OT"),
            units="HU" if is_ct else "stored",
            pixel_spacing_mm=(rows_mm, columns_mm or rows_mm) if assumed else (float(spacing[1]), float(spacing[0])),
            spacing_source="assumed" if assumed else "header",
            positions_lps_mm=positions,
            directions_lps=[(to_lps[:3, k] / spacing[k]).tolist() for k in (0, 1)],
            slice_thickness_mm=float(spacing[2]),
            oddities=(_doubtful_spacing(),) * doubtful + (IS_MADE,) * bool(self.node.GetAttribute(MADE)),
            tags=tuple(dict(one) for one in tags),
        )
        told = _as_tuples(json.loads(self.node.GetAttribute(LOADED) or "{}"))
        if assumed:  # what the user gives goes before it
            told = {name: value for name, value in told.items() if name not in ("pixel_spacing_mm", "spacing_source")}
        return dataclasses.replace(header, **told)


def fingerprint(node):
    """What an image was when it was looked at: pixels, place, transform."""
    image = node.GetImageData()
    transform = node.GetParentTransformNode()
    return (
        image.GetMTime() if image is not None else 0,
        tuple(np.asarray(slicer.util.arrayFromVTKMatrix(_matrix_of(node))).ravel()),
        None if transform is None else (transform.GetID(), transform.IsTransformToWorldLinear(), _world_of(transform)),
    )


def _world_of(transform):
    matrix = vtk.vtkMatrix4x4()
    if transform.IsTransformToWorldLinear():
        transform.GetMatrixTransformToWorld(matrix)
    return tuple(np.asarray(slicer.util.arrayFromVTKMatrix(matrix)).ravel())


def ijk_to_ras(header, slices):
    """IJK to RAS of an image header (LPS)."""
    positions = np.array(header["positions_lps_mm"])
    row, column = np.array(header["directions_lps"])
    spacing = header["pixel_spacing_mm"] or (1.0, 1.0)
    normal = np.cross(row, column)
    step = (positions[-1] - positions[0]) / (slices - 1) if slices > 1 else normal * (header["slice_thickness_mm"] or 1)
    matrix = np.eye(4)
    matrix[:3, 0], matrix[:3, 1] = row * spacing[1], column * spacing[0]
    matrix[:3, 2], matrix[:3, 3] = step, positions[0]
    return RAS_TO_LPS @ matrix


def kept_header(header):
    """What the pixels and the geometry of a volume can't tell of a loaded image's header, as JSON."""
    return json.dumps({name: header[name] for name in KEPT})


def _as_tuples(told):
    return {name: tuple(value) if isinstance(value, list) else value for name, value in told.items() if name in KEPT}


def _doubtful_spacing():
    return _("a pixel spacing of 1 mm may be Slicer's guess: give the true one under Pixel spacing")


def refusal(node):
    """Why a volume can't be worked on, in words for a radiologist; None where it can."""
    if node is None:
        return _("Choose a background, or load a sample.")
    if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
        return _("This volume holds no image.")
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        return _("This is a colour image. Make it grey first (module Vector to Scalar Volume), or choose another.")
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _("This is a label map. Choose an image.")
    if node.GetAttribute("HiResMedSynth.role"):
        return _("This is a result of HiResMedSynth. Choose the image that it was made from.")
    transform = node.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        return _("This image is bent by a non-linear transform. Harden the transform first (Transforms module).")
    return None


def _matrix_of(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def _to_local(node, world):
    return _transformed(None, node.GetParentTransformNode(), world)


def _to_world(node, local):
    return _transformed(node.GetParentTransformNode(), None, local)


def _transformed(source, target, point):
    if source is target:
        return np.asarray(point, dtype=float)
    general = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, general)
    return np.array(general.TransformPoint(*map(float, point)))
