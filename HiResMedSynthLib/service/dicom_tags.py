"""A volume that Slicer loaded from DICOM -> the MedicalImage that reading the files would have given.

Slicer sends its values and the allow-listed tags of each slice as text; stored values are computed back, and
assembled by the code that reads files. So an export from Slicer equals the command line's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import with_assumed_spacing
from HiResMedSynthLib.read_dicom import assembled
from HiResMedSynthLib.read_header import KEYWORDS, SliceHeader, slice_headers
from HiResMedSynthLib.read_quietly import quietly
from HiResMedSynthLib.service.protocol import inverted_sum

SEQUENCES = ("ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
MOST_TEXT = 1024  # characters of one tag
SAME_PLACE_MM = 0.1  # Slicer averages the slice distance, headers round theirs
LEFT_OUT = "the DICOM header was left out"
WHERE = Path("the volume in Slicer")


def image_from_tags(values: NDArray[Any], tags: Sequence[Mapping[str, str]], plain: MedicalImage) -> MedicalImage:
    """The image as its files would be read; `plain`, with a note, where tags and volume don't agree.

    Args:
        values: what Slicer holds, `[slice, row, column]`, modality units.
        tags: one mapping a slice, DICOM keyword -> text (backslash between values).
        plain: the same image by its geometry in Slicer alone.
    """
    assumed = plain.pixel_spacing_mm if plain.spacing_source == "assumed" else None
    try:
        headers = [_header(slice_tags) for slice_tags in tags]
        stored = _stored(values, headers, inverted_sum(tags[0]))
        image = assembled(headers, stored, spacing_mm=assumed, oddities=[])
    except (HiResMedSynthError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        reason = error.what if isinstance(error, HiResMedSynthError) else "its DICOM header can't be read"
        return _noted(plain, reason)
    if image.shape != plain.shape or not _same_place(image, plain):
        return _noted(plain, "the volume is not where its DICOM header says")
    return image if assumed is None else with_assumed_spacing(image, assumed)


def _noted(plain: MedicalImage, reason: str) -> MedicalImage:
    return replace(plain, oddities=(*plain.oddities, f"{LEFT_OUT}: {reason}"))


def is_left_out(oddity: str) -> bool:
    """Whether a note says that the header of a volume from Slicer couldn't be used."""
    return oddity.startswith(LEFT_OUT)


def _header(tags: Mapping[str, str]) -> SliceHeader:
    from pydicom import Dataset
    from pydicom.datadict import dictionary_VR

    data = Dataset()
    with quietly():
        for keyword, text in tags.items():
            if keyword not in KEYWORDS or keyword in SEQUENCES or not text or len(text) > MOST_TEXT:
                continue
            parts: list[Any] = text.split("\\")
            kind = dictionary_VR(keyword)
            if kind in ("US", "SS", "UL", "US or SS"):
                parts = [int(float(part)) for part in parts]
                kind = "SS" if min(parts) < 0 else "US" if kind == "US or SS" else kind
            data.add_new(keyword, kind, parts if len(parts) > 1 else parts[0])
        found = slice_headers(WHERE, data)
    if len(found) != 1:
        raise ReadError("it is a multi-frame object", where=WHERE, remedy="Load its files with the command line.")
    return found[0]


def _stored(values: NDArray[Any], headers: Sequence[SliceHeader], inverted: int | None) -> NDArray[Any]:
    """Stored values, rescale and inversion (see `inverted_sum`) undone; refuses values that no stored value gives."""
    bits = int(headers[0].data.get("BitsAllocated") or 16)
    signed = int(headers[0].data.get("PixelRepresentation") or 0) == 1
    kind = np.dtype(f"{'i' if signed else 'u'}{max(bits, 8) // 8}")
    stored = np.empty(values.shape, dtype=kind)
    if len(headers) != len(values):
        raise ReadError("it has another number of slices", where=WHERE, remedy="Load the series again.")
    for k, header in enumerate(headers):
        plane = values[k]
        if (header.slope, header.intercept) != (1.0, 0.0):
            plane = np.round((plane.astype(np.float64) - header.intercept) / header.slope)
        stored[k] = plane
        if not np.allclose(stored[k] * np.float64(header.slope) + header.intercept, values[k], rtol=1e-5, atol=1e-3):
            raise ReadError("its values were changed", where=WHERE, remedy="Load the series again.")
    return stored if inverted is None else (inverted - stored).astype(kind)


def _same_place(image: MedicalImage, plain: MedicalImage) -> bool:
    assert image.positions_lps_mm is not None
    assert plain.positions_lps_mm is not None
    if image.slices == 1 and not image.positions_lps_mm.any():
        return True  # a radiograph has no position
    near = np.abs(image.positions_lps_mm - plain.positions_lps_mm).max() <= SAME_PLACE_MM * max(1, image.slices / 10)
    return bool(near and np.allclose(image.directions_lps, plain.directions_lps, atol=1e-3))
