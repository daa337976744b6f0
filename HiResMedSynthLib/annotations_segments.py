"""DICOM Segmentation (PS3.3 A.51) -> one mask a segment on the slices of an image, and what the segment is called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotated_image import LONGEST_CLASS
from HiResMedSynthLib.annotations_files import bad, sound
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read_codec import decoded_pixels

ABNORMAL = ("49755003", "M-01000")  # Morphologically Abnormal Structure (PS3.16 CID 7150), SNOMED CT and SRT
GENERAL = ("tissue", "organ", "anatomical structure", "body structure", "structure", "lesion", "")
NEAR_MM = 0.05  # rounding of positions in headers
Positions = Mapping[str, tuple[float, ...] | None]  # of pictures by SOP Instance UID


def segments_of(
    data: Any, name: str, image: MedicalImage, positions: Positions
) -> Iterator[tuple[Any, NDArray[np.bool_]]]:
    """(segment's description, bool `[slice, row, column]` on the image) of each segment."""
    groups = list(data.get("PerFrameFunctionalGroupsSequence") or ())
    shared: Any = next(iter(data.get("SharedFunctionalGroupsSequence") or ()), {})
    size = (int(data.get("Rows") or 0), int(data.get("Columns") or 0))
    sound(size == image.shape[1:], f"it has {size[0]} x {size[1]} pixels, its series {image.rows} x {image.columns}",
          name, "Export it on the grid of its series.")  # fmt: skip
    frames = int(data.get("NumberOfFrames") or 1)
    sound(len(groups) == frames, "its frames and their descriptions differ in number", name, "Export it anew.")
    slices = [_slice_of(group, shared, image, positions, name) for group in groups]
    described = {int(segment.SegmentNumber): segment for segment in data.get("SegmentSequence") or ()}
    if str(data.get("SegmentationType") or "") == "LABELMAP":
        labels = np.zeros(image.shape, dtype=np.uint16)
        for frame, index in enumerate(slices):
            labels[index] = _plane(data, frame, name)
        numbers: list[int] = [number for number in np.unique(labels).tolist() if number]
        frames_of: dict[int, list[int]] = {number: [] for number in numbers}
    else:
        frames_of = defaultdict(list)
        for frame, group in enumerate(groups):
            told = group.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
            frames_of[int(told[0].ReferencedSegmentNumber) if told else -1].append(frame)
        labels = None
    for number in sorted(frames_of):
        sound(number in described, f"segment {number} is not described", name, "Export it anew.")
        if labels is not None:
            yield described[number], labels == number
            continue
        mask = np.zeros(image.shape, dtype=bool)  # one segment at a time: a hundred of them don't fit into memory
        for frame in frames_of[number]:
            mask[slices[frame]] |= _plane(data, frame, name) > 0
        yield described[number], mask


def _plane(data: Any, frame: int, name: str) -> NDArray[Any]:
    """`[row, column]` of a frame; of a FRACTIONAL one what is at least half."""
    try:
        plane = decoded_pixels(data, index=frame)
    except Exception as error:  # decoders raise whatever they meet
        raise bad("its pixels can't be decoded: it is damaged or cut off", name, "Export it anew.") from error
    if str(data.get("SegmentationType") or "") == "FRACTIONAL":
        return plane.astype(np.uint16) * 2 >= int(data.get("MaximumFractionalValue") or 255)
    return plane


def _slice_of(group: Any, shared: Any, image: MedicalImage, positions: Positions, name: str) -> int:
    """Index of the image's slice that a frame lies on."""
    told = group.get("PlanePositionSequence") or shared.get("PlanePositionSequence")
    position = told[0].get("ImagePositionPatient") if told else None
    if not position:
        position = next((positions[uid] for uid in sources(group) if positions.get(uid)), None)
    if not position:
        sound(image.slices == 1, "a frame doesn't tell its place", name, "Export it with plane positions.")
        return 0
    _refuse_turned(group, shared, image, name)
    assert image.positions_lps_mm is not None
    place = np.array([float(value) for value in position])
    away = np.linalg.norm(image.positions_lps_mm - place, axis=1)
    index = int(away.argmin())
    pixel = min(image.pixel_spacing_mm or (1.0, 1.0))
    steps = np.abs(image.slice_steps_mm)
    near = away[index] <= max(NEAR_MM, 0.1 * min(pixel, float(steps.min()) if steps.size else pixel))
    sound(bool(near), f"a frame lies {away[index]:.2f} mm from the nearest slice", name,
          "Export it on the grid of its series.")  # fmt: skip
    return index


def _refuse_turned(group: Any, shared: Any, image: MedicalImage, name: str) -> None:
    told = group.get("PlaneOrientationSequence") or shared.get("PlaneOrientationSequence")
    values = told[0].get("ImageOrientationPatient") if told else None
    if values:
        turned = np.abs(np.array([float(v) for v in values]).reshape(2, 3) - image.directions_lps).max() > 1e-2
        sound(not turned, "it is turned or mirrored against its series", name, "Export it on the grid of its series.")


def is_lesion(segment: Any) -> bool:
    """Whether a segment is a lesion by its category."""
    category = segment.get("SegmentedPropertyCategoryCodeSequence")
    return bool(category) and str(category[0].get("CodeValue") or "") in ABNORMAL


def class_name(segment: Any) -> str:
    """The property type's meaning in small letters; the segment's label where that is too general."""
    kind = segment.get("SegmentedPropertyTypeCodeSequence")
    meaning = str(kind[0].get("CodeMeaning") or "").strip().lower() if kind else ""
    label = str(segment.get("SegmentLabel") or "").strip()
    name = label if meaning in GENERAL and label else meaning
    plain = "".join(letter for letter in name if letter.isprintable() and letter != "\\")
    return plain.strip()[:LONGEST_CLASS].strip() or "unnamed"


def sources(group: Any) -> list[str]:
    """SOP Instance UIDs of the pictures that a frame was drawn on."""
    return [
        str(source.get("ReferencedSOPInstanceUID"))
        for derived in group.get("DerivationImageSequence") or ()
        for source in derived.get("SourceImageSequence") or ()
    ]
