"""Volumes as Slicer sends them (values of its reader, tags as text) are read as their files are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # reads DICOM by GDCM, as Slicer does

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.read_header import KEYWORDS
from HiResMedSynthLib.service.dicom_tags import SEQUENCES, image_from_tags
from HiResMedSynthLib.service.protocol import inverted_sum
from Testing.slices import DX, MR, write_slice

INVERTED = {"modality": "DX", "sop_class": DX, "PhotometricInterpretation": "MONOCHROME1"}
RESCALED = {"RescaleSlope": 2, "RescaleIntercept": -100}
KINDS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "8 bits": ("u1", 8, INVERTED),
    "12 bits": ("<u2", 12, INVERTED),
    "16 bits": ("<u2", 16, INVERTED),
    "16 bits signed": ("<i2", 16, INVERTED),
    "12 bits rescaled": ("<u2", 12, INVERTED | RESCALED),
    "MR": ("<u2", 12, RESCALED | {"modality": "MR", "sop_class": MR, "EchoTime": 90, "RepetitionTime": 4000}),
    "for processing": ("<u2", 12, INVERTED | {
        "PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1, "PatientOrientation": ["R", "F"],
    }),
}  # fmt: skip


def as_slicer_has_it(file: Path) -> tuple[np.ndarray, dict[str, str]]:
    """Values and tags of a file."""
    data = pydicom.dcmread(file)
    told = {word: data.get(word) for word in KEYWORDS if word not in SEQUENCES and data.get(word) is not None}
    texts = {
        word: "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else str(value)
        for word, value in told.items()
    }
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))), texts


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_from_slicer_is_that_of_its_file(kind: str, tmp_path: Path) -> None:
    dtype, bits, attributes = KINDS[kind]
    low = -(2 ** (bits - 1)) if dtype.startswith("<i") else 0
    stored = np.linspace(low, low + 2**bits - 1, 24 * 20).reshape(24, 20).astype(dtype)
    file = write_slice(tmp_path / "a.dcm", stored, BitsStored=bits, HighBit=bits - 1, **attributes)
    values, tags = as_slicer_has_it(file)
    plain = MedicalImage(pixels=values, modality="OT", pixel_spacing_mm=(0.7, 0.7), spacing_source="header")
    ours, theirs = image_from_tags(values, [tags], plain), read_image(file)
    assert np.array_equal(ours.pixels, theirs.pixels)
    for field in dataclasses.fields(MedicalImage):
        if field.name not in ("pixels", "positions_lps_mm", "directions_lps", "volume_problem"):
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    total = inverted_sum(tags)
    held = theirs.pixels.astype(float) if total is None else total - theirs.pixels.astype(float)
    assert np.array_equal(held * float(tags.get("RescaleSlope", 1)) + float(tags.get("RescaleIntercept", 0)), values)
