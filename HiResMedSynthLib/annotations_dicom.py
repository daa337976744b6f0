"""DICOM series with DICOM Segmentations (PS3.3 A.51) -> marks and class maps.

A SEG belongs to the series whose pictures it refers to (SOP Instance UIDs), else to the one series of its frame of
reference that has its grid. Segments of the category "Morphologically Abnormal Structure" are marks of lesions, all
others are classes of the map. A class is called as the segment's property type, or by its label where that is general.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotated_image import AnnotatedImage, ClassMap, Mark
from HiResMedSynthLib.annotations_files import bad, inside, sound
from HiResMedSynthLib.annotations_segments import class_name, is_lesion, segments_of, sources
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.read_bounds import refuse_deflated_bomb
from HiResMedSynthLib.read_dicom import looks_like_dicom, read_dicom_files
from HiResMedSynthLib.read_header import is_radiograph
from HiResMedSynthLib.read_quietly import quietly

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # by segment; as a label map
TOLD = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID", "Modality", "Rows",
    "Columns", "ImagePositionPatient", "SegmentSequence",
)  # fmt: skip
DAMAGED = (  # what pydicom raises on broken attributes, on first access
    AttributeError, ArithmeticError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError, struct.error,
)  # fmt: skip
Images = list[tuple[str, Callable[[], AnnotatedImage]]]


@dataclass(frozen=True, kw_only=True)
class _Series:
    """Files of one series: names, and the position of each SOP instance (None where it has none)."""

    names: tuple[str, ...]
    positions: dict[str, tuple[float, ...] | None]
    frame_of_reference: str
    patient: str


def holds_segmentation(folder: Path, names: Sequence[str]) -> bool:
    """Whether one of the files is a DICOM Segmentation."""
    return any(str(data.get("SOPClassUID")) in SEGMENTATIONS for _, data in _headers(folder, names, strict=False))


def segmented_images(folder: Path, names: Sequence[str]) -> tuple[dict[int, str], Images, list[str]]:
    """(classes of the map by number, (name, what reads the image) of each series that has a SEG, notes).

    Raises:
        ReadError: a header is damaged.
    """
    segments: list[tuple[str, Any]] = []
    files: dict[str, list[tuple[str, Any]]] = defaultdict(list)
    for name, data in _headers(folder, names, strict=True):
        if str(data.get("SOPClassUID")) in SEGMENTATIONS:
            segments.append((name, data))
        elif "Rows" in data and "Columns" in data:
            uid = data.get("SOPInstanceUID" if is_radiograph(data) else "SeriesInstanceUID")  # films are no stack
            files[str(uid or "")].append((name, data))
    series = {uid: _series(members) for uid, members in files.items()}
    anatomy = sorted({
        class_name(segment) for _, data in segments for segment in data.get("SegmentSequence") or ()
        if not is_lesion(segment) and segment.get("SegmentNumber") != 0  # 0: the background of a label map
    })  # fmt: skip
    sound(len(anatomy) <= 255, "the segmentations name more than 255 classes", segments[0][0], "Split the folder.")
    classes = dict(enumerate(anatomy, start=1))
    chosen: dict[str, list[str]] = defaultdict(list)
    result: Images = []
    for name, data in segments:
        try:
            chosen[_series_of(folder, name, data, series)].append(name)
        except HiResMedSynthError as error:
            result.append((name, partial(_raise, error)))
        except DAMAGED:
            result.append((name, partial(_raise, bad("its references are damaged", name, "Export it anew."))))
    for uid, masks in chosen.items():
        result.append((series[uid].names[0], partial(_read, folder, series[uid], masks, classes)))
    without = len(series) - len(chosen)
    notes = [f"{without} series have no segmentation and were left out"] if without else []
    return classes, sorted(result, key=lambda one: one[0]), notes


def _raise(error: HiResMedSynthError) -> AnnotatedImage:
    raise error


def _headers(folder: Path, names: Sequence[str], *, strict: bool) -> Iterator[tuple[str, Any]]:
    """(name, header) of every DICOM file; what is damaged is refused, or passed over where not strict."""
    import pydicom

    for name in names:
        path = inside(folder, name) if strict or not (folder / name).is_symlink() else None
        if path is None:
            continue
        try:
            with path.open("rb") as stream:
                if not looks_like_dicom(stream.read(132)):
                    continue
            with quietly():
                refuse_deflated_bomb(path)
                data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(TOLD), force=True)
                _touch(data)
        except Exception as error:  # pydicom raises whatever its parsing meets in a damaged file
            if strict:
                raise bad("its header is damaged", name, "Copy the file anew from its source.") from error
            continue
        yield name, data


def _touch(data: Any) -> None:
    """Makes pydicom convert the values that are used later, as it does on first access: what is broken fails here."""
    for keyword in TOLD:
        data.get(keyword)
    _position(data)
    for segment in data.get("SegmentSequence") or ():
        class_name(segment), is_lesion(segment), segment.get("SegmentNumber")


def _position(data: Any) -> tuple[float, ...] | None:
    told = data.get("ImagePositionPatient")
    return tuple(float(value) for value in told) if told else None


def _series(members: list[tuple[str, Any]]) -> _Series:
    positions = {str(data.get("SOPInstanceUID")): _position(data) for _, data in members}
    first = members[0][1]
    return _Series(
        names=tuple(sorted(name for name, _ in members)),
        positions=positions,
        frame_of_reference=str(first.get("FrameOfReferenceUID") or ""),
        patient=str(first.get("PatientID") or "").strip(),
    )


def _series_of(folder: Path, name: str, data: Any, series: dict[str, _Series]) -> str:
    """UID of the series that a SEG belongs to."""
    told = _referenced(_whole(folder, name))
    hits = {uid: len(told & set(one.positions)) for uid, one in series.items()}
    best = max(hits, key=lambda uid: hits[uid], default="")
    if best and hits[best]:
        return best
    frame = str(data.get("FrameOfReferenceUID") or "")
    same = [uid for uid, one in series.items() if frame and one.frame_of_reference == frame]
    what = "several series share its frame of reference" if same else "it refers to pictures that are not here"
    sound(len(same) == 1, what, name, "Put the series that it was drawn on into the folder.")
    return same[0]


def _whole(folder: Path, name: str) -> Any:
    """The SEG with its functional groups, without pixels."""
    import pydicom

    try:
        with quietly():
            return pydicom.dcmread(inside(folder, name), defer_size=4096, force=True)
    except HiResMedSynthError:
        raise
    except Exception as error:  # as above
        raise bad("its header is damaged or cut off", name, "Copy the file anew from its source.") from error


def _referenced(data: Any) -> set[str]:
    """SOP Instance UIDs that a SEG names, in its list of series and at its frames."""
    found = {
        str(one.get("ReferencedSOPInstanceUID"))
        for series in data.get("ReferencedSeriesSequence") or ()
        for one in series.get("ReferencedInstanceSequence") or ()
    }
    return found | {uid for group in data.get("PerFrameFunctionalGroupsSequence") or () for uid in sources(group)}


def _read(folder: Path, series: _Series, masks: list[str], classes: dict[int, str]) -> AnnotatedImage:
    first = series.names[0]
    try:
        files = [inside(folder, name) for name in series.names]
        image = read_dicom_files(files, where=folder, spacing_mm=None, series=None, slice_index=None)
    except HiResMedSynthError as error:
        raise bad(error.what, first, error.remedy) from error
    labels = np.zeros(image.shape, dtype=np.uint8)
    marks: list[Mark] = []
    for name in masks:
        try:
            for segment, mask in segments_of(_whole(folder, name), name, image, series.positions):
                if is_lesion(segment):
                    marks += _lesion(segment, mask)
                else:
                    _paint(labels, mask, class_name(segment), classes, name)
        except DAMAGED as error:
            raise bad(f"its description is damaged ({type(error).__name__})", name, "Export it anew.") from error
    try:
        class_map = ClassMap(labels=labels, names=classes) if classes else None
        return AnnotatedImage(image=image, marks=tuple(marks), class_map=class_map, name=first, patient=series.patient)
    except HiResMedSynthError as error:
        raise bad(error.what, masks[0], error.remedy) from error


def _lesion(segment: Any, mask: NDArray[np.bool_]) -> list[Mark]:
    """The mark of a segment; none where it is empty."""
    voxels = np.argwhere(mask)
    if not len(voxels):
        return []
    place = voxels[len(voxels) // 2].tolist()
    return [Mark(class_name=class_name(segment), shape="segment", place=(place[0], place[1], place[2]),
                 corner=(0, 0, 0), mask=mask)]  # fmt: skip


def _paint(labels: NDArray[np.uint8], mask: NDArray[np.bool_], called: str, classes: dict[int, str], name: str) -> None:
    """Writes a class into the map; refuses a voxel that another class has."""
    number = next((number for number, known in classes.items() if known == called), 0)
    sound(number > 0, f"segment '{called}' is described in two ways", name, "Export it anew.")
    taken = labels[mask]
    other = taken[(taken != 0) & (taken != number)]
    rival = classes[int(other[0])] if other.size else ""
    sound(not rival, f"segments '{called}' and '{rival}' claim the same voxels", name,
          "Correct one of them: a voxel has one class.")  # fmt: skip
    labels[mask] = number
