"""The composed image in the scene: patches written in place, the case beside it, all under a synthetic study."""

import base64
import json
import re
from dataclasses import dataclass

import numpy as np
import slicer
from slicer.i18n import tr as _

from HiResMedSynthLib.service.protocol import inverted_sum
from HiResMedSynthPanel import wishes
from HiResMedSynthPanel.overlays import ROLE, image_data_of

PATIENT, STUDY = "SYNTHETIC", "SYNTHETIC, research only"


@dataclass(frozen=True)
class Composition:
    """What the backend made of the wishes.

    Args:
        patches: ((slice, row, column) corner, pixels) of each lesion.
        case: the document of case.json; None where no lesion could be placed.
        lesions: bytes of lesions.safetensors.
        keys: the wish of each lesion, in the order of their numbers.
        refused: key -> {"what", "remedy", "nearest"}.
        is_stored: the patches are stored values, Slicer holds rescaled ones.
    """

    patches: tuple
    case: dict
    lesions: bytes
    keys: tuple
    refused: dict
    is_stored: bool = False

    @classmethod
    def of_result(cls, arrays, document, keys):
        """From a job's result; `keys` are those of the requests, in their order."""
        numbers = sorted(document["corners"], key=int)
        return cls(
            patches=tuple((tuple(document["corners"][n]), arrays[f"{n}.pixels"]) for n in numbers),
            case=document["case"],
            lesions=arrays["lesions"].tobytes() if "lesions" in arrays else b"",
            keys=tuple(keys[k] for k in document["requests"]),
            refused={keys[one["request"]]: one for one in document["refused"]},
            is_stored=document["stored_values"],
        )

    @classmethod
    def of_scene(cls, case, lesions, volume, points):
        """From what a saved scene holds: case.json, the drawn lesions' bytes, the composed volume and the points."""
        # safetensors: 8 bytes of length, then JSON with the shape of each array
        header = json.loads(lesions[8 : 8 + int.from_bytes(lesions[:8], "little")])
        array = slicer.util.arrayFromVolume(volume)
        first = case["background"].get("source_slice") or 0
        keys = {wish.seed: wish.key for _index, wish, _position in wishes.placed(points)}
        patches = []
        for lesion in case["lesions"]:
            corner, shape = tuple(lesion["corner"]), header[f"{lesion['number']}.alpha"]["shape"]
            start = (corner[0] + first, corner[1], corner[2])
            region = tuple(slice(low, low + size) for low, size in zip(start, shape, strict=False))
            patches.append((corner, array[region].copy()))
        found = tuple(keys.get(lesion["request"]["seed"], -1) for lesion in case["lesions"])
        return cls(tuple(patches), case, lesions, found, {})

    def drawn(self, key):
        """What case.json says of a wish's lesion; None where it has none."""
        if self.case is None or key not in self.keys:
            return None
        return self.case["lesions"][self.keys.index(key)]

    def notes(self, key):
        """Sentences of case.json on a wish's lesion: why it was drawn again, what is out of range, what can't be seen.

        They name it by the key, which the table shows; the backend numbers what could be placed.
        """
        drawn = self.drawn(key)
        if drawn is None:
            return ()
        said = re.compile(rf"lesion {drawn['number']}\b")
        lines = (*self.case["background"].get("oddities", ()), *self.case.get("log", ()))
        return tuple(f"Lesion {key}{line[found.end() :]}." for line in lines if (found := said.match(line)))

    @property
    def size(self):
        """Bytes held."""
        return len(self.lesions) + sum(pixels.nbytes for _corner, pixels in self.patches)


def new_volume(background, pixels):
    """A volume like the background in the synthetic study, over `pixels`: a copy of the background's."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", _("SYNTHETIC composition"))
    node.SetAttribute(ROLE, "composed")
    node.CopyOrientation(background)
    node.SetAndObserveTransformNodeID(background.GetTransformNodeID())
    node.CreateDefaultDisplayNodes()  # before there are pixels: else it makes a histogram of them all
    shown, source = node.GetDisplayNode(), background.GetDisplayNode()
    if source is not None:
        shown.SetAutoWindowLevel(False)
        shown.SetWindowLevel(source.GetWindow(), source.GetLevel())
        shown.SetAndObserveColorNodeID(source.GetColorNodeID())
        shown.SetInterpolate(source.GetInterpolate())
    node.SetAndObserveImageData(image_data_of(pixels))
    file_under_synthetic(node)
    return node


def write_patches(volume, background, image, old, composition):
    """Takes the old patches out of the volume and writes those of a composition, in place."""
    target, source = slicer.util.arrayFromVolume(volume), slicer.util.arrayFromVolume(background)
    for corner, pixels in old:
        region = image.region_of(corner, pixels.shape)
        target[region] = source[region]
    for corner, pixels in composition.patches:
        region = image.region_of(corner, pixels.shape)
        if composition.is_stored and image.header.tags:
            pixels = _rescaled(pixels, image, corner)
        target[region] = pixels.astype(target.dtype)
    slicer.util.arrayFromVolumeModified(volume)


def _rescaled(pixels, image, corner):
    """Values as Slicer holds them: of modalities other than CT the backend works on stored values."""
    planes, inverted = [], inverted_sum(image.header.tags[0])
    for offset, plane in enumerate(pixels if inverted is None else float(inverted) - pixels):
        tags = image.header.tags[corner[0] + offset]
        planes.append(plane * float(tags.get("RescaleSlope", 1)) + float(tags.get("RescaleIntercept", 0)))
    return np.asarray(planes)


def text_node(node, name, text):
    """A text node (made where it is None) with that text; returns it."""
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", name)
        node.SetAttribute(ROLE, "text")
    if node.GetText() != text:
        node.SetText(text)
    return node


def case_text(case):
    """case.json as the library writes it."""
    return json.dumps(case, indent=2, ensure_ascii=False) + "\n"


def packed(data):
    """Bytes as text for a text node."""
    return base64.b64encode(data).decode("ascii")


def unpacked(node):
    """The bytes in a text node; b"" where there are none."""
    try:
        return base64.b64decode(node.GetText() or "", validate=True) if node is not None else b""
    except ValueError:
        return b""


def file_under_synthetic(node):
    """Puts a volume under the synthetic patient and study of the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    scene = hierarchy.GetSceneItemID()
    patient = hierarchy.GetItemChildWithName(scene, PATIENT) or hierarchy.CreateSubjectItem(scene, PATIENT)
    study = hierarchy.GetItemChildWithName(patient, STUDY) or hierarchy.CreateStudyItem(patient, STUDY)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(study, node)
    hierarchy.SetItemParent(item, study)
