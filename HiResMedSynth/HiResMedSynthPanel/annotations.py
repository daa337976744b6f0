"""Annotations in the scene: marks of real lesions as points, boxes and segments that know their image."""

import json
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from HiResMedSynthLib.service.client import BackendError
from HiResMedSynthLib.service.protocol import ErrorInfo, pack_arrays
from HiResMedSynthPanel import dicom_tags
from HiResMedSynthPanel.outlines import roi_outline, segment_outline
from HiResMedSynthPanel.overlays import ROLE
from HiResMedSynthPanel.signals import Signal
from HiResMedSynthPanel.slicer_image import LOADED, MADE, SlicerImage, ijk_to_ras, kept_header, refusal

IMAGE, FACTS = "HiResMedSynth.image", "HiResMedSynth.mark"
LEFT_OUT = "HiResMedSynth.left_out"  # a segment that is no mark
COLOR = (0.2, 0.7, 0.95)
BOX_MM = 20.0


@dataclass(frozen=True)
class SceneMark:
    """A mark as it lies in the scene: its node, and the point or segment of it."""

    node: object
    kind: str
    part: object
    facts: dict

    @property
    def text(self):
        """How it is listed."""
        kinds = {"point": _("point"), "box": _("box"), "segment": _("segment")}
        size = f", {self.facts['size']:g} mm" if self.facts.get("size") else ""
        comment = f" ({self.facts['comment']})" if self.facts.get("comment") else ""
        return f"{self.facts.get('class') or '?'}: {kinds[self.kind]}{size}{comment}"


class Annotations(slicer.util.VTKObservationMixin):
    """Finds, adds, sends and shows marks; the scene holds them."""

    def __init__(self):
        slicer.util.VTKObservationMixin.__init__(self)
        self.changed = Signal()

    def candidates(self):
        """Volumes that can be annotated."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return [
            node
            for node in nodes
            if not (node.GetAttribute(ROLE) or node.GetAttribute(MADE))
            and node.GetClassName() == "vtkMRMLScalarVolumeNode"
        ]

    def images(self):
        """Volumes that hold a mark, or came from a folder of annotations."""
        return [node for node in self.candidates() if node.GetAttribute(LOADED) or self.marks_of(node)]

    def _nodes_of(self, volume, kind):
        nodes = slicer.util.getNodesByClass(kind)
        return [node for node in nodes if node.GetNodeReferenceID(IMAGE) == volume.GetID()]

    def points_of(self, volume):
        """The points node of a volume's annotations; None where there is none."""
        return next(iter(self._nodes_of(volume, "vtkMRMLMarkupsFiducialNode")), None)

    def make_points(self, volume, defaults):
        """The points node, made where there is none; points placed in it take `defaults()`."""
        node = self.points_of(volume)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", _("Annotations"))
            node.SetAttribute(ROLE, "annotation")
            node.SetNodeReferenceID(IMAGE, volume.GetID())
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetSelectedColor(*COLOR)
        if not self.hasObserver(node, node.PointPositionDefinedEvent, self._placed):
            self.addObserver(node, node.PointPositionDefinedEvent, self._placed)
            self.addObserver(node, node.PointRemovedEvent, self._removed)
        self._defaults = defaults
        return node

    def _placed(self, node, _event):
        for index in range(node.GetNumberOfControlPoints()):
            if not node.GetNthControlPointDescription(index):
                facts = self._defaults()
                node.SetNthControlPointDescription(index, json.dumps(facts))
                node.SetNthControlPointLabel(index, facts["class"])
        self.changed.emit()

    def _removed(self, _node, _event):
        self.changed.emit()

    def add_box(self, volume, center, facts):
        """An ROI at a point, to be moved onto a lesion."""
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", facts["class"] or _("box"))
        node.SetAttribute(ROLE, "annotation")
        node.SetAttribute(FACTS, json.dumps(facts))
        node.SetNodeReferenceID(IMAGE, volume.GetID())
        node.CreateDefaultDisplayNodes()
        node.SetCenter(vtk.vtkVector3d(*center))
        size = facts["size"] or BOX_MM
        node.SetSize(size, size, size)
        self.changed.emit()
        return node

    def take_segments(self, volume, segmentation):
        """Counts the segments of a segmentation as marks of a volume."""
        segmentation.SetNodeReferenceID(IMAGE, volume.GetID())
        for segment in _segments(segmentation):
            segment.RemoveTag(LEFT_OUT)
        self.changed.emit()

    def marks_of(self, volume):
        """The marks of a volume."""
        found = [
            SceneMark(node, "point", index, _facts(node.GetNthControlPointDescription(index)))
            for node in self._nodes_of(volume, "vtkMRMLMarkupsFiducialNode")
            for index in range(node.GetNumberOfControlPoints())
            if node.GetNthControlPointPositionStatus(index) == node.PositionDefined
        ]
        boxes = self._nodes_of(volume, "vtkMRMLMarkupsROINode")
        found += [SceneMark(node, "box", None, _facts(node.GetAttribute(FACTS))) for node in boxes]
        for node in self._nodes_of(volume, "vtkMRMLSegmentationNode"):
            segmentation = node.GetSegmentation()
            for number, segment in enumerate(_segments(node)):
                text = vtk.reference("")
                if segment.HasTag(LEFT_OUT):
                    continue
                known = segment.GetTag(FACTS, text)
                facts = {**_facts(str(text) if known else ""), "class": segment.GetName()}
                found.append(SceneMark(node, "segment", segmentation.GetNthSegmentID(number), facts))
        return found

    def change(self, volume, number, facts):
        """Gives a mark another class, size or comment."""
        mark = self.marks_of(volume)[number]
        if mark.kind == "point":
            mark.node.SetNthControlPointDescription(mark.part, json.dumps(facts))
            mark.node.SetNthControlPointLabel(mark.part, facts["class"])
        elif mark.kind == "box":
            mark.node.SetAttribute(FACTS, json.dumps(facts))
        else:
            segment = mark.node.GetSegmentation().GetSegment(mark.part)
            segment.SetName(facts["class"])
            segment.SetTag(FACTS, json.dumps(facts))
        self.changed.emit()

    def delete(self, volume, number):
        """Takes a mark away (a segment is only no longer counted)."""
        mark = self.marks_of(volume)[number]
        if mark.kind == "point":
            mark.node.RemoveNthControlPoint(mark.part)
        elif mark.kind == "box":
            slicer.mrmlScene.RemoveNode(mark.node)
        else:
            mark.node.GetSegmentation().GetSegment(mark.part).SetTag(LEFT_OUT, "1")
        self.changed.emit()

    # -- to and from the backend -----------------------------------------------------------------------------------
    def sending(self, background=None, spacing=(0.0, 0.0)):
        """(problem or "", callable(client) that sends all images and marks and gives the job's parameters).

        Args:
            background: the volume that is worked on, or None.
            spacing: (rows, columns) in mm as the user gave them for it; 0: as the image says, the same.
        """
        sent, outside = [], 0
        for volume in self.images():
            problem = refusal(volume)
            if problem:
                return f"{volume.GetName()}: {problem}", None
            tags = list(dicom_tags.collect(volume))[-1]
            image = SlicerImage(volume, tags=tags, assumed_spacing=spacing if volume is background else (0.0, 0.0))
            image.doubt_spacing()
            described = [_described(mark, image) for mark in self.marks_of(volume)]
            marks = [one for one in described if one is not None]
            outside += len(described) - len(marks)
            if any(not one["class_name"] for one, _mask in marks):
                return _("A mark has no class. Give each lesion a class."), None
            sent.append((image, marks))

        if outside:
            return _("{n} mark(s) lie outside their image. Move or delete them.").format(n=outside), None

        def prepare(client):
            budget = client.health()["memory"]["budget_bytes"]
            if sum(image.pixels.nbytes for image, _marks in sent) > budget:
                told = _("together the images are more than the backend may hold ({n} MiB)").format(n=budget >> 20)
                raise BackendError(ErrorInfo(what=told, remedy=_("Save fewer at a time: take some out of the scene.")))
            images = []
            for image, marks in sent:
                told = []
                for mark, mask in marks:
                    blob = client.send_bytes(pack_arrays({"mask": mask})) if mask is not None else None
                    told.append({**mark, "mask": blob})
                images.append({"image": image.send(client), "marks": told})
            return {"images": images, "seg": True}

        return "", prepare

    def show(self, arrays, document, defaults):
        """Volumes and marks of a loaded folder, as nodes of the scene; returns the volumes."""
        volumes = []
        for number, told in enumerate(document["images"], start=1):
            pixels, header = arrays[f"{number}.pixels"], told["header"]
            volume = slicer.util.addVolumeFromArray(pixels, ijk_to_ras(header, len(pixels)), f"IM{number:04d}")
            volume.SetAttribute(LOADED, kept_header(header))
            if header["photometric"] == "MONOCHROME1":
                volume.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeInvertedGrey")
            image = SlicerImage(volume)
            points = self.make_points(volume, defaults)
            for order, mark in enumerate(told["marks"], start=1):
                facts = {"class": mark["class_name"], "size": mark["diameter_mm"] or 0.0, "comment": mark["comment"]}
                mask = arrays.get(f"{number}.{order}.mask")
                self._show_mark(image, points, mark, facts, mask)
            volumes.append(volume)
        self.changed.emit()
        return volumes

    def _show_mark(self, image, points, mark, facts, mask):
        if mark["shape"] == "point" or mask is None:
            index = points.AddControlPointWorld(*image.world_of(mark["place"]))
            points.SetNthControlPointDescription(index, json.dumps(facts))
            points.SetNthControlPointLabel(index, facts["class"])
            return
        corner = np.array(mark["corner"], dtype=float)
        if mark["shape"] == "box":
            node = self.add_box(image.node, image.world_of(corner + np.array(mask.shape) / 2 - 0.5), facts)
            _lay_along(node, image, mask.shape)
            return
        node = next(iter(self._nodes_of(image.node, "vtkMRMLSegmentationNode")), None)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", _("Annotated segments"))
            node.SetAttribute(ROLE, "annotation")
            node.CreateDefaultDisplayNodes()
            node.SetReferenceImageGeometryParameterFromVolumeNode(image.node)
            node.SetNodeReferenceID(IMAGE, image.node.GetID())
        whole = np.zeros(image.shape, dtype=np.uint8)
        whole[image.region_of(mark["corner"], mask.shape)] = mask
        segment = node.GetSegmentation().AddEmptySegment("", facts["class"])
        node.GetSegmentation().GetSegment(segment).SetTag(FACTS, json.dumps(facts))
        slicer.util.updateSegmentBinaryLabelmapFromArray(whole, node, segment, image.node)


def _segments(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]


def _lay_along(node, image, shape):
    """Gives an ROI the size of so many (slices, rows, columns), and the image's own directions."""
    zero = np.array(image.world_of((0, 0, 0)))
    axes = [np.array(image.world_of(unit)) - zero for unit in ((0, 0, 1), (0, 1, 0), (1, 0, 0))]
    lengths = [float(np.linalg.norm(axis)) for axis in axes]
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(node.GetObjectToNodeMatrix())
    for column, (axis, length) in enumerate(zip(axes, lengths, strict=True)):
        for row in range(3):
            matrix.SetElement(row, column, float(axis[row] / length))
    if matrix.Determinant() < 0:  # a box is the same both ways round
        for row in range(3):
            matrix.SetElement(row, 2, -matrix.GetElement(row, 2))
    node.SetAndObserveObjectToNodeMatrix(matrix)
    node.SetSize(*(length * count for length, count in zip(lengths, reversed(shape), strict=True)))


def _facts(text):
    try:
        return {"class": "", "size": 0.0, "comment": "", **json.loads(text or "{}")}
    except ValueError:
        return {"class": "", "size": 0.0, "comment": ""}


def _described(mark, image):
    """(mark as it travels, its mask or None); None where it doesn't meet the image."""
    facts = mark.facts
    fields = {"class_name": facts.get("class", ""), "shape": mark.kind, "comment": facts.get("comment", "")}
    if mark.kind == "point":
        place = [round(value) for value in image.place_of(mark.node.GetNthControlPointPositionWorld(mark.part))]
        if any(not 0 <= value < size for value, size in zip(place, image.pixels.shape, strict=False)):
            return None
        return {**fields, "place": place, "diameter_mm": facts.get("size") or None}, None
    outline = roi_outline(mark.node, image) if mark.kind == "box" else segment_outline(mark.node, image, mark.part)
    if outline is None:
        return None
    corner, inside = outline
    place = [int(low + size // 2) for low, size in zip(corner, inside.shape, strict=False)]
    fields.update(place=place, corner=[int(value) for value in corner])
    if mark.kind == "box":
        return {**fields, "size": [int(value) for value in inside.shape]}, None
    return fields, inside
