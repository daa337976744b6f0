"""Images of any geometry, depth, values and header: composed, exported and read, they are the same outside lesions.

Or they are refused clearly. Nothing is changed without a word; the examples are the same on each run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.export.folder import ExportedFolder, export
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.export.cases import composition_in
from Testing.slices import CT, DX, MR, SECONDARY, write_slice

ROWS, COLUMNS = 11, 17  # the lesion of `composition_in` fits in
CR = "1.2.840.10008.5.1.4.1.1.1"
ROUNDED = "16 bits can't hold"
NUMBERS = ["", "0", "-1", "1e-7", "1e9", "1\\2\\3"]
TEXTS = ["", "YES", "no code string !", "ZZZ", "X" * 40]
CODES = ("PatientPosition", "ViewPosition", "BodyPartExamined", "ImageLaterality", "BurnedInAnnotation", "Modality")
HARMLESS = ("KVP", "GantryDetectorTilt", "RepetitionTime", "EchoTime", "WindowCenter", "WindowWidth", "SliceThickness")

same_each_time = settings(
    max_examples=40, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@st.composite
def stored_values(draw: Any, slices: int) -> tuple[NDArray[Any], dict[str, Any]]:
    """(stored values, the attributes of their form): 8, 12 or 16 bits, signed or not; noise, extremes or a constant."""
    bits, signed = draw(st.sampled_from([(8, False), (12, False), (16, False), (12, True), (16, True)]))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shape = (slices, ROWS, COLUMNS)
    kind = draw(st.sampled_from(["noise", "extremes", "constant", "narrow"]))
    values = {
        "noise": lambda: rng.integers(low, high + 1, shape),
        "extremes": lambda: np.where(rng.random(shape) < 0.5, low, high),
        "constant": lambda: np.full(shape, draw(st.sampled_from([low, high, 0, 7]))),
        "narrow": lambda: rng.integers(max(low, high - 3), high + 1, shape),
    }[kind]()
    held = np.dtype("u1" if bits == 8 else "<i2" if signed else "<u2")
    return values.astype(held), {"BitsStored": bits, "HighBit": bits - 1}


@st.composite
def geometry(draw: Any, slices: int) -> tuple[dict[str, Any], list[list[float]]]:
    """(attributes, position of each slice): any spacing, any turn, now and then tilted, uneven or without positions."""
    spacing = [draw(st.floats(0.01, 20)) for _ in range(2)]
    axes = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 999))).normal(size=(3, 3)))[0]
    if draw(st.booleans()):
        axes = np.eye(3)[list(draw(st.permutations(range(3))))] * draw(st.sampled_from([1, -1]))
    row, column = axes[0], axes[1]
    step = np.cross(row, column) * draw(st.floats(0.05, 30))
    if draw(st.integers(0, 4)) == 0:
        step = step + row * draw(st.floats(-3, 3))
    origin = np.array([draw(st.floats(-1e4, 1e4)) for _ in range(3)])
    gaps = [1 if draw(st.integers(0, 9)) else 3 for _ in range(slices)]
    places = [[float(f"{v:.8g}") for v in origin + at * step] for at in np.cumsum([0, *gaps])[:slices]]
    attributes: dict[str, Any] = {
        "PixelSpacing": [float(f"{s:.8g}") for s in spacing],
        "ImageOrientationPatient": [float(f"{v:.9f}") for v in (*row, *column)],
        "SliceThickness": draw(st.sampled_from([None, 0, 1.25, 40])),
    }
    missing = draw(st.sampled_from(["", "", "", "", "PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"]))
    if missing:
        attributes[missing] = None
    return attributes, places


@st.composite
def sources(draw: Any) -> tuple[list[dict[str, Any]], NDArray[Any], dict[str, Any]]:
    """(attributes of each slice, stored values, attributes of the class) of a DICOM series or picture."""
    slices = draw(st.sampled_from([1, 1, 5, 7]))
    stored, form = draw(stored_values(slices))
    where, places = draw(geometry(slices))
    modality, sop_class = draw(
        st.sampled_from([("CT", CT), ("CT", CT), ("MR", MR), ("DX", DX), ("CR", CR), ("OT", SECONDARY)])
    )
    common = {**form, **where, "PhotometricInterpretation": draw(st.sampled_from(["MONOCHROME2", "MONOCHROME1"]))}
    if modality == "CT" or draw(st.booleans()):
        slope = draw(st.sampled_from([1, 1, 1, 0.5, 2.75, -1, 1e-3, None]))
        common |= {
            "RescaleSlope": slope,
            "RescaleIntercept": draw(st.sampled_from([-1024, 0, -1024.5, 3000, 1e6, None])),
        }
    if draw(st.booleans()):
        common["PixelPaddingValue"] = int(stored.min())
    for keyword in draw(st.lists(st.sampled_from(HARMLESS), max_size=2, unique=True)):
        common[keyword] = draw(st.sampled_from(NUMBERS))
    for keyword in draw(st.lists(st.sampled_from(CODES), max_size=2, unique=True)):
        common[keyword] = draw(st.sampled_from([*TEXTS, None]))
    each = [
        common if common.get("ImagePositionPatient", "") is None else {**common, "ImagePositionPatient": place}
        for place in places
    ]
    return each, stored, {"modality": modality, "sop_class": sop_class}


def write_source(folder: Path, each: list[dict[str, Any]], stored: NDArray[Any], of_class: dict[str, Any]) -> Path:
    import pydicom

    with pydicom.config.disable_value_validation():
        for number, (attributes, plane) in enumerate(zip(each, stored, strict=True), start=1):
            write_slice(folder / f"{number}.dcm", plane, **of_class, **{"InstanceNumber": number, **attributes})
    return folder


def check(image: MedicalImage, out: Path) -> ExportedFolder:
    """Exports a composition in the image, and holds what is read again against it."""
    composition = composition_in(image)
    exported = export(composition, out, pair=True, with_preview=False)
    again, background = read_image(out / "dicom"), read_image(out / "dicom_background")
    outside = composition.alpha == 0
    assert again.shape == image.shape
    assert outside.any()
    rounded = any(ROUNDED in note for note in exported.notes)
    for read, meant in ((background, image), (again, composition.image)):
        got, wanted = read.pixels.astype(np.float64), meant.pixels.astype(np.float64)
        if rounded:
            assert np.abs(got - wanted).max() <= np.ptp(wanted) / 65535 + 1e-6 * np.abs(wanted).max()
        else:
            assert np.array_equal(got, wanted), "values were changed without a word"
    assert np.array_equal(again.pixels[outside], background.pixels[outside])
    assert again.photometric == image.photometric
    assert (again.units, again.modality in (image.modality, "OT", "CR")) == (image.units, True)
    same_geometry(again, image)
    replayed = compose(image, read_case(out))
    assert replayed.image.pixel_sha256 == composition.image.pixel_sha256
    return exported


def same_geometry(again: MedicalImage, image: MedicalImage) -> None:
    assert (again.pixel_spacing_mm is None) == (image.pixel_spacing_mm is None)
    if image.pixel_spacing_mm is None:
        return
    assert again.pixel_spacing_mm == pytest.approx(image.pixel_spacing_mm, rel=1e-6)
    corners = [(k, r, c) for k in (0, image.slices - 1) for r in (0, ROWS - 1) for c in (0, COLUMNS - 1)]
    size = max(1.0, float(np.abs(image.index_to_lps(corners)).max()))
    if again.facts.sop_class_uid in (CT, MR):  # a radiograph or a Secondary Capture has no place in space
        assert np.abs(again.index_to_lps(corners) - image.index_to_lps(corners)).max() <= 1e-6 * size


@same_each_time
@given(sources())
def test_a_dicom_source_of_any_kind(source: Any) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = write_source(Path(place) / "source", *source)
        before = {path: path.read_bytes() for path in folder.iterdir()}
        try:
            check(read_image(folder), Path(place) / "case")
        except HiResMedSynthError as error:
            assert error.remedy
            assert not (Path(place) / "case").exists()
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
        assert sorted(path.name for path in Path(place).iterdir()) in (["case", "source"], ["source"])
