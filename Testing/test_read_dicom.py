"""Reading DICOM: series, geometry, units, and what was odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import (
    ImplicitVRLittleEndian,
)

from HiResMedSynthLib.errors import GeometryError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from Testing.slices import DX, MR, SECONDARY, write_slice, write_stack

STACK = np.arange(6 * 4 * 5, dtype=np.uint16).reshape(6, 4, 5) * 10
XRAY_3D = "1.2.840.10008.5.1.4.1.1.13.1"


def odd(image: MedicalImage, word: str) -> bool:
    return any(word in oddity for oddity in image.oddities)


def test_the_ct_series_is_read_in_hounsfield_units_from_feet_to_head(ct_series_folder: Path) -> None:
    image = read_image(ct_series_folder)
    assert image.shape == (12, 512, 512)
    assert image.pixels.dtype == np.int16
    assert (image.modality, image.units, image.spacing_source) == ("CT", "HU", "header")
    assert image.spacing_mm == pytest.approx((5.0, 0.841796875, 0.841796875))
    assert np.allclose(image.slice_steps_mm, 5.0)
    assert (image.bits_stored, image.stored_signed, image.rescale) == (12, False, (1.0, -1024.0))
    assert image.window is not None
    assert (image.window.center, image.window.width) == (-600, 1600)
    assert image.volume_problem is None
    assert image.facts.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    lowest = pydicom.dcmread(ct_series_folder / "IM0035.dcm")
    assert np.array_equal(image.pixels[0], lowest.pixel_array.astype(np.int32) - 1024)


def test_the_film_has_no_spacing_until_it_is_given(cxr_file: Path) -> None:
    image = read_image(cxr_file)
    assert image.shape == (1, 1024, 1024)
    assert image.pixels.dtype == np.uint8
    assert (image.modality, image.units, image.spacing_source) == ("DX", "stored", "unknown")
    assert odd(image, "spacing is unknown")
    assert odd(image, "burned")
    with pytest.raises(GeometryError, match="--spacing-mm"):
        _ = image.spacing_mm
    given = read_image(cxr_file, spacing_mm=(0.342, 0.4175))
    assert (given.pixel_spacing_mm, given.spacing_source) == ((0.342, 0.4175), "assumed")
    assert not odd(given, "spacing is unknown")


def test_four_compressed_syntaxes_give_the_same_pixels(edge_case_folder: Path) -> None:
    images = [read_image(edge_case_folder / f"a0001_im18_{s}.dcm") for s in ("rle", "jpegls", "j2k", "jpegll")]
    assert {image.shape for image in images} == {(1, 512, 512)}
    assert len({image.pixel_sha256 for image in images}) == 1
    assert int(images[0].pixels.min()) < -900


def test_repeats_of_one_instance_are_left_out(edge_case_folder: Path) -> None:
    image = read_image(edge_case_folder)
    assert image.slices == 1
    assert odd(image, "repeat another")


def test_gantry_tilt_is_noticed(tilted_folder: Path) -> None:
    image = read_image(tilted_folder)
    assert image.slices == 4
    assert image.volume_problem is not None
    assert "18.5 degrees" in image.volume_problem
    assert odd(image, "gantry tilt")
    assert read_image(tilted_folder, slice_index=2).volume_problem is None


def test_nothing_of_the_person_is_kept(tmp_path: Path) -> None:
    image = read_image(write_stack(tmp_path, STACK, [0, 2, 4, 6, 8, 11]))
    assert "Secret" not in repr((image.facts, image.oddities, image.modality))


def test_a_bare_data_set_without_preamble_is_read(tmp_path: Path) -> None:
    part10 = write_slice(tmp_path / "a.dcm", STACK[1], syntax=ImplicitVRLittleEndian)
    bare = tmp_path / "bare"
    data = pydicom.dcmread(part10)
    del data.file_meta
    data.preamble = None
    data.save_as(bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert read_image(bare).pixel_sha256 == read_image(part10).pixel_sha256


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "kind"),
    [
        (np.array([[0, 4095]], np.uint16), 1, -1024, "int16"),
        (np.array([[-2000, 3000]], np.int16), 1, 0, "int16"),
        (np.array([[0, 33000]], np.uint16), 1, -1024, "int16"),  # the stored values alone don't fit int16
        (np.array([[0, 65535]], np.uint16), 1, -1024, "int32"),
        (np.array([[0, 4095]], np.uint16), 0.5, -1024, "float32"),
        (np.array([[0, 4095]], np.uint16), 1, -1024.5, "float32"),
        (np.array([[0, 250]], np.uint8), 1, -100, "int16"),
    ],
)
def test_rescale_of_ct(stored: np.ndarray, slope: float, intercept: float, kind: str, tmp_path: Path) -> None:
    image = read_image(write_slice(tmp_path / "a.dcm", stored, RescaleSlope=slope, RescaleIntercept=intercept))
    assert image.pixels.dtype.name == kind
    assert image.pixels[0].tolist() == (stored.astype(float) * slope + intercept).tolist()
    assert image.rescale == (slope, intercept)


def test_a_rescale_that_differs_between_slices(tmp_path: Path) -> None:
    for k, modality in enumerate(("CT", "CT", "MR", "MR")):
        write_slice(
            tmp_path / modality / f"{k}.dcm", STACK[k], modality=modality, sop_class=MR, RescaleSlope=1 + k,
            RescaleIntercept=5, ImagePositionPatient=[0, 0, k],
        )  # fmt: skip
    ct, mr = read_image(tmp_path / "CT"), read_image(tmp_path / "MR")
    assert np.array_equal(ct.pixels[1], STACK[1] * 2.0 + 5)
    assert odd(ct, "differs from slice to slice")
    assert np.array_equal(mr.pixels, STACK[2:4])
    assert (mr.units, mr.rescale) == ("stored", (1.0, 0.0))
    assert odd(mr, "not applied")


def test_ct_without_rescale_is_told(tmp_path: Path) -> None:
    image = read_image(write_slice(tmp_path / "a.dcm", STACK[0], RescaleSlope=None, RescaleIntercept=None))
    assert odd(image, "gives no rescale")


def test_values_that_cannot_be_are_ignored(tmp_path: Path) -> None:
    file = write_slice(tmp_path / "a.dcm", STACK[0], KVP=123456, PixelPaddingValue=0)
    content = file.read_bytes().replace(b"123456", b"12x3y6")
    file.write_bytes(content.replace(b"\x28\x00\x20\x01US", b"\x28\x00\x20\x01FD"))  # two bytes are no double
    image = read_image(file)
    assert image.facts.kvp is None
    assert image.padding_value is None
    assert odd(image, "can't be read")


def test_padding_and_window_are_in_modality_units(tmp_path: Path) -> None:
    ct = read_image(
        write_slice(
            tmp_path / "a.dcm",
            STACK[0],
            PixelPaddingValue=0,
            WindowCenter=[40, -600],
            WindowWidth=[400, 1500],
            syntax=ImplicitVRLittleEndian,
        )
    )
    assert ct.padding_value == -1024
    assert ct.window is not None
    assert (ct.window.center, ct.window.width) == (40, 400)
    film = read_image(
        write_slice(
            tmp_path / "b.dcm",
            STACK[0],
            modality="DX",
            sop_class=DX,
            RescaleSlope=2,
            RescaleIntercept=10,
            WindowCenter=110,
            WindowWidth=100,
        )
    )
    assert film.window is not None
    assert (film.window.center, film.window.width) == (50, 50)


def test_monochrome1_is_kept_as_stored(tmp_path: Path) -> None:
    file = write_slice(
        tmp_path / "a.dcm", STACK[2], modality="CR", sop_class=SECONDARY, PhotometricInterpretation="MONOCHROME1"
    )
    image = read_image(file)
    assert image.photometric == "MONOCHROME1"
    assert np.array_equal(image.pixels[0], STACK[2])


@pytest.mark.parametrize(("sign", "photometric"), [(1, "MONOCHROME1"), (-1, "MONOCHROME2")])
def test_an_image_for_processing_is_taken_by_its_sign_and_says_so(sign: int, photometric: str, tmp_path: Path) -> None:
    """PS3.3 C.8.11.3.1.2: 1 where lower values mean less X-ray intensity, so denser tissue."""
    raw: dict[str, Any] = {
        "modality": "DX", "sop_class": DX, "PresentationIntentType": "FOR PROCESSING",
        "PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": sign,
    }  # fmt: skip
    for given in ("MONOCHROME1", "MONOCHROME2"):
        image = read_image(write_slice(tmp_path / f"{given}.dcm", STACK[0], PhotometricInterpretation=given, **raw))
        assert image.photometric == photometric
        assert odd(image, "the sign was believed") == (given != photometric)
        assert odd(image, "linear in the X-ray intensity")
    shown = write_slice(tmp_path / "shown.dcm", STACK[0], **{**raw, "PresentationIntentType": "FOR PRESENTATION"})
    assert read_image(shown).photometric == "MONOCHROME2"


def test_anisotropic_spacing_is_row_then_column(tmp_path: Path) -> None:
    image = read_image(write_slice(tmp_path / "a.dcm", STACK[0], PixelSpacing=[0.5, 0.8]))
    assert image.pixel_spacing_mm == (0.5, 0.8)
    assert odd(image, "not square")


def test_detector_spacing_is_told(tmp_path: Path) -> None:
    image = read_image(
        write_slice(
            tmp_path / "a.dcm",
            STACK[0],
            modality="DX",
            sop_class=DX,
            PixelSpacing=None,
            ImagerPixelSpacing=[0.15, 0.15],
            BurnedInAnnotation="YES",
            LossyImageCompression="01",
            SyntheticData="YES",
        )
    )
    assert image.pixel_spacing_mm == image.facts.imager_pixel_spacing_mm == (0.15, 0.15)
    for word in ("detector", "burned into", "lossily", "synthetic"):
        assert odd(image, word), word


def test_the_users_spacing_wins_and_is_told(tmp_path: Path) -> None:
    file = write_slice(tmp_path / "a.dcm", STACK[0])
    image = read_image(file, spacing_mm=(0.9, 0.9))
    assert (image.pixel_spacing_mm, image.spacing_source) == ((0.9, 0.9), "assumed")
    assert odd(image, "0.7 x 0.7")
    zero = write_slice(tmp_path / "b.dcm", STACK[0], PixelSpacing=[0, 0])
    assert odd(read_image(zero, spacing_mm=(0.9, 0.9)), "can't be")


def test_an_impossible_orientation_is_ignored_and_told(tmp_path: Path) -> None:
    image = read_image(write_slice(tmp_path / "a.dcm", STACK[0], ImageOrientationPatient=[0, 0, 0, 0, 0, 0]))
    assert odd(image, "orientation in the header can't be")


def item(**attributes: object) -> pydicom.Dataset:
    data = pydicom.Dataset()
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    return data


def enhanced(path: Path, **attributes: object) -> Path:
    """An enhanced CT of three frames, the topmost first."""
    frames = [
        item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, height])], FrameContentSequence=[item()])
        for height in (8, 4, 0)
    ]
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.5, 0.6], SliceThickness=4)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[item(RescaleSlope=1, RescaleIntercept=-1000, RescaleType="HU")],
        FrameVOILUTSequence=[item(WindowCenter=30, WindowWidth=300)],
    )
    plain = ("RescaleSlope", "RescaleIntercept", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")
    return write_slice(
        path,
        STACK[0],
        **dict.fromkeys((*plain, "SliceThickness")),
        **{
            "NumberOfFrames": 3,
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
            "PixelData": STACK[:3].tobytes(),
            **attributes,
        },
    )


def test_enhanced_ct_is_read_frame_by_frame(tmp_path: Path) -> None:
    file = enhanced(tmp_path / "a.dcm")
    image = read_image(file)
    assert np.array_equal(image.pixels, STACK[2::-1].astype(np.int16) - 1000)
    assert image.spacing_mm == (4, 0.5, 0.6)
    assert image.window is not None
    assert image.window.center == 30
    assert np.array_equal(read_image(file, slice_index=2).pixels, image.pixels[2:])


def test_pydicoms_own_ct_and_mr_are_read() -> None:
    assert read_image(get_testdata_file("CT_small.dcm") or "").units == "HU"
    assert read_image(get_testdata_file("MR_small.dcm") or "").units == "stored"
