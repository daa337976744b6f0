"""Reading volumes and pictures, and the account that `inspect` gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from click.testing import CliRunner
from PIL import Image

from HiResMedSynthLib.cli.inspect import inspect_command
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import ORIENTATION_UNKNOWN, MedicalImage, Window
from HiResMedSynthLib.inspect import describe
from HiResMedSynthLib.read import read_image

GREY = np.arange(0, 60000, 100, dtype=np.uint16).reshape(20, 30)


def write_volume(path: Path, pixels: np.ndarray) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(pixels), str(path))
    return path


@pytest.mark.parametrize(
    ("kind", "values", "held", "units"),
    [
        ("int16", (-1000, 400), "int16", "HU"),
        ("int16", (0, 400), "int16", "stored"),
        ("uint8", (0, 255), "uint8", "stored"),
        ("uint16", (0, 65535), "uint16", "stored"),
        ("int8", (-100, 100), "int16", "stored"),
        ("uint32", (0, 70000), "int32", "stored"),
        ("int64", (-1000, 70000), "int32", "HU"),
        ("float32", (-1000.5, 70.25), "float32", "HU"),
        ("float64", (0.5, 70.25), "float32", "stored"),
        ("float32", (-1000.0, 70.0), "int16", "HU"),
    ],
)
def test_types_of_volumes(kind: str, values: tuple[float, float], held: str, units: str, tmp_path: Path) -> None:
    pixels = np.zeros((2, 3, 4), kind)
    pixels[0, 0, 0], pixels[1, 2, 3] = values
    path = write_volume(tmp_path / "a.nrrd", pixels)
    image = read_image(path)
    assert (image.pixels.dtype.name, image.units) == (held, units)
    assert np.array_equal(image.pixels.astype(np.float64), pixels.astype(np.float64))
    assert any("taken for CT" in o for o in image.oddities) == (units == "HU")
    assert {read_image(path, slice_index=k).units for k in (0, 1)} == {units}


def test_a_header_without_spacing_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(
        b"NRRD0004\ntype: uint8\ndimension: 2\nsizes: 3 2\nencoding: raw\nendian: little\n\n" + bytes(range(6))
    )
    image = read_image(path)
    assert image.spacing_source == "unknown"
    assert image.pixels[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read_image(path, spacing_mm=(1, 2)).pixel_spacing_mm == (1, 2)


@pytest.mark.parametrize("name", ["A.MHA", "B.NRRD", "nrrd_of_no_name", "mha_of_no_name"])
def test_a_slice_of_a_volume_is_read_whatever_the_file_s_name(name: str, tmp_path: Path) -> None:
    values = np.full((3, 4, 5), 40, np.int16)
    values[0] = -1000
    suffix = ".nrrd" if "nrrd" in name.lower() else ".mha"
    write_volume(tmp_path / f"a{suffix}", values).rename(tmp_path / name)
    assert read_image(tmp_path / name).slices == 3
    one = read_image(tmp_path / name, slice_index=2)  # no air in it: what the volume is decides
    assert (one.units, one.slices, one.pixels[0, 0, 0]) == ("HU", 1, 40)


def without_orientation(content: bytes, suffix: str) -> bytes:
    if suffix == ".nii":  # qform_code and sform_code
        return content[:252] + bytes(4) + content[256:]
    content = content.replace(b"space: left-posterior-superior", b"space dimension: 3")
    words = (b"TransformMatrix", b"AnatomicalOrientation")
    return b"\n".join(line for line in content.split(b"\n") if not line.startswith(words))


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha"])
def test_a_ct_volume_that_lies_nobody_knows_how_is_told(suffix: str, tmp_path: Path) -> None:
    told = write_volume(tmp_path / f"told{suffix}", np.full((2, 3, 4), -1000, np.int16))
    bare = tmp_path / f"bare{suffix}"
    bare.write_bytes(without_orientation(told.read_bytes(), suffix))
    assert ORIENTATION_UNKNOWN not in read_image(told).oddities
    assert ORIENTATION_UNKNOWN in read_image(bare).oddities


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "misnamed.nrrd"])
def test_sixteen_bit_pictures_keep_their_depth(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(GREY).save(path, "PNG" if name.endswith("nrrd") else None)
    image = read_image(path)
    assert image.pixels.dtype == np.uint16
    assert np.array_equal(image.pixels[0], GREY)
    assert (image.modality, image.spacing_source, image.bits_stored) == ("OT", "unknown", 16)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2", "a.jpg"])
def test_eight_bit_pictures_and_no_dpi_as_spacing(name: str, tmp_path: Path) -> None:
    pixels = (GREY // 256).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / name, dpi=(300, 300), quality=95)
    image = read_image(tmp_path / name)
    assert image.pixels.dtype == np.uint8
    assert image.pixel_spacing_mm is None
    assert np.abs(image.pixels[0].astype(int) - pixels).max() <= (4 if name in ("a.jpg",) else 0)
    assert any("lossy" in o for o in image.oddities) == (name == "a.jpg")


def test_grey_stored_as_colour_is_grey(tmp_path: Path) -> None:
    pixels = (GREY // 256).astype(np.uint8)
    Image.fromarray(np.repeat(pixels[..., np.newaxis], 3, axis=2)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(image.pixels[0], pixels)
    assert any("taken as grey" in o for o in image.oddities)


def test_a_white_is_zero_tiff_is_monochrome1(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.tif", tiffinfo={262: 0})
    image = read_image(tmp_path / "a.tif")
    assert (image.photometric, image.pixels[0, 0, 1]) == ("MONOCHROME1", GREY[0, 1])


def test_describe_tells_what_matters(ct_series_folder: Path, tilted_folder: Path, cxr_file: Path) -> None:
    ct = describe(read_image(ct_series_folder))
    for words in ("12 slices of 512 rows x 512 columns", "axial", "3-D lesions possible", "towards the head", "CT"):
        assert words in ct
    assert "3-D lesions refused: the stack is sheared by 18.5 degrees" in describe(read_image(tilted_folder))
    assert "--spacing-mm" in describe(read_image(cxr_file))


def test_inspect_command(ct_series_folder: Path, cxr_file: Path) -> None:
    said = CliRunner().invoke(inspect_command, [str(cxr_file), "--spacing-mm", "0.342,0.4175", "--json"])
    assert said.exit_code == 0
    facts = json.loads(said.output)
    assert (facts["pixel_spacing_mm"], facts["spacing_source"]) == ([0.342, 0.4175], "assumed")
    said = CliRunner().invoke(inspect_command, [str(ct_series_folder), "--slice", "3"])
    assert said.exit_code == 0
    assert "512 rows x 512 columns" in said.output


@pytest.mark.parametrize("name", ["film.jpg", "film.png", "film.tif"])
def test_a_picture_is_read_as_viewers_show_it(name: str, tmp_path: Path) -> None:
    upright = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((16, 16), np.uint8)) * 20
    for orientation, stored in ((6, np.rot90(upright)), (3, np.rot90(upright, 2)), (2, np.fliplr(upright))):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(tmp_path / name, exif=exif)
        if (name, orientation) == ("film.tif", 6):
            with pytest.raises(ReadError, match="turns it by 90 degrees"):
                read_image(tmp_path / name)
            continue
        image = read_image(tmp_path / name)
        assert np.abs(image.pixels[0].astype(int) - upright).max() <= 4, orientation  # JPEG loses a little
        assert name == "film.tif" or any("EXIF" in oddity for oddity in image.oddities)  # Pillow turns TIFF itself


def test_a_ct_without_a_window_is_shown_in_that_of_what_it_shows(tmp_path: Path) -> None:
    chest = np.full((2, 40, 40), -1000, np.int16)
    chest[:, 5:35, 5:35] = 40
    assert read_image(write_volume(tmp_path / "abdomen.nrrd", chest)).display_window().center == 40
    chest[:, 10:30, 10:20] = -850
    assert read_image(write_volume(tmp_path / "chest.nrrd", chest)).display_window().center == -600


def test_what_is_dense_is_shown_bright_by_either_photometric() -> None:
    values, window = np.array([[[0, 100, 150, 250]]], np.int16), Window(center=150, width=100)
    film = MedicalImage(pixels=values, modality="DX", window=window)
    inverted = MedicalImage(pixels=250 - values, modality="DX", photometric="MONOCHROME1")
    assert film.shown(film.pixels).tolist() == [[[0, 0, 0.5, 1]]]
    assert inverted.shown(inverted.pixels, Window(center=100, width=100)).tolist() == [[[0, 0, 0.5, 1]]]
