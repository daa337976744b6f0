"""Every input that can't be read is refused with one clear ReadError, never with a foreign exception."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.uid import generate_uid

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.read import read_image
from Testing.slices import SECONDARY, write_slice, write_stack

GREY = np.arange(400, dtype=np.uint16).reshape(20, 20)


def file_of(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def archive_of(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.dcm", b"0" * 200)
    return path


def picture(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def volume(path: Path, pixels: np.ndarray, *, vector: bool = False) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=vector), str(path))
    return path


def cut(source: Path, target: Path, share: float) -> Path:
    content = source.read_bytes()
    return file_of(target, content[: int(len(content) * share)])


def unknown_syntax(path: Path) -> Path:
    write_slice(path, GREY)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
    data.PixelData = pydicom.encaps.encapsulate([b"\0\1\2\3"])
    data["PixelData"].is_undefined_length = True
    data.save_as(path)
    return path


def without_pixels(path: Path) -> Path:
    data = pydicom.dcmread(write_slice(path, GREY))
    del data.PixelData
    data.save_as(path)
    return path


def segmentation(path: Path) -> Path:
    return write_slice(path, GREY, modality="SEG", sop_class="1.2.840.10008.5.1.4.1.1.66.4")


def two_series(folder: Path) -> Path:
    for k in range(3):
        write_slice(folder / f"a{k}", GREY, ImagePositionPatient=[0, 0, k])
    write_slice(folder / "b", GREY, SeriesInstanceUID=generate_uid(), modality="MR", StudyDescription="Secret")
    return folder


def cd(folder: Path) -> Path:
    (series := folder / "PT0" / "ST0" / "SE0").mkdir(parents=True)
    write_slice(series / "IM0", GREY)
    for name in ("DICOMDIR", "autorun.inf"):
        file_of(folder / name, b"what else is on it")
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


NAN = np.full((2, 3, 4), np.nan, np.float32)
BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda p: p / "absent.dcm", "no such file"),
    "empty folder": (lambda p: empty(p / "e"), "empty"),
    "empty file": (lambda p: file_of(p / "a.dcm", b""), "empty"),
    "patient's CD": (lambda p: cd(p / "cd"), "deeper than one folder below.*PT0/ST0/SE0"),
    "folder of text": (lambda p: file_of(empty(p / "e") / "a.txt", b"hello").parent, "no DICOM picture"),
    "an archive": (lambda p: archive_of(p / "a.zip"), "a packed archive"),
    "not an image": (lambda p: file_of(p / "a.dcm", b"hello, I am a letter" * 20), "not a medical image"),
    "DICOM magic only": (lambda p: file_of(p / "a", b"\0" * 128 + b"DICM"), "no picture"),
    "noise after the magic": (lambda p: file_of(p / "a", b"\0" * 128 + b"DICM" + b"\xff\x07" * 300), "."),
    "two series": (lambda p: two_series(p / "two"), "2 series .1: CT, 3 pictures of 20 x 20, 0.7 x 0.7 mm; 2: MR, 1"),
    "no pixels": (lambda p: write_slice(p / "a", GREY, Rows=None), "no picture"),
    "header only": (lambda p: without_pixels(p / "a"), "no pixels"),
    "truncated pixels": (lambda p: cut(write_slice(p / "b", GREY), p / "a", 0.8), "cut off or damaged"),
    "unsupported syntax": (lambda p: unknown_syntax(p / "a"), "compression is not supported .MPEG-4"),
    "segmentation": (lambda p: segmentation(p / "a"), "Segmentation Storage"),
    "colour DICOM": (
        lambda p: write_slice(
            p / "a",
            GREY,
            sop_class=SECONDARY,
            modality="OT",
            PhotometricInterpretation="RGB",
            SamplesPerPixel=3,
            PlanarConfiguration=0,
            PixelData=GREY.tobytes() * 3,
        ),
        "colour",
    ),
    "palette DICOM": (lambda p: write_slice(p / "a", GREY, PhotometricInterpretation="PALETTE COLOR"), "colour"),
    "zero spacing": (lambda p: write_slice(p / "a", GREY, PixelSpacing=[0, 0]), "spacing is 0 x 0 mm"),
    "negative spacing": (lambda p: write_slice(p / "a", GREY, PixelSpacing=[-1, 1]), "spacing is -1 x 1 mm"),
    "zero rescale": (lambda p: write_slice(p / "a", GREY, RescaleSlope=0), "rescale"),
    "multi-frame without positions": (
        lambda p: write_slice(p / "a", GREY, NumberOfFrames=2, PixelData=GREY.tobytes() * 2),
        "no picture that can be read as slices",
    ),
    "NaN": (lambda p: volume(p / "a.nrrd", NAN), "NaN"),
    "NaN in a TIFF": (lambda p: picture(p / "a.tif", NAN[0]), "NaN"),
    "vectors": (lambda p: volume(p / "a.nrrd", np.zeros((2, 3, 4, 3), np.uint8), vector=True), "colours"),
    "four dimensions": (lambda p: volume(p / "a.nrrd", np.zeros((2, 3, 4, 5), np.int16)), "4 dimensions"),
    "huge values": (lambda p: volume(p / "a.nrrd", np.full((2, 3, 4), 2**40)), "int64"),
    "truncated NRRD": (lambda p: cut(volume(p / "b.nrrd", np.ones((9, 30, 40))), p / "a.nrrd", 0.5), "can't be read"),
    "text as NIfTI": (lambda p: file_of(p / "a.nii.gz", b"hello"), "can't be read"),
    "truncated PNG": (lambda p: cut(picture(p / "b.png", GREY), p / "a.png", 0.6), "damaged or cut off"),
    "truncated JPEG": (
        lambda p: cut(picture(p / "b.jpg", GREY.astype(np.uint8)), p / "a.jpg", 0.9),
        "damaged or cut off",
    ),
    "truncated JPEG 2000": (lambda p: cut(picture(p / "b.jp2", GREY), p / "a.jp2", 0.3), "damaged or cut off"),
    "colour picture": (
        lambda p: picture(p / "a.png", np.random.default_rng(0).integers(0, 255, (9, 9, 3)).astype(np.uint8)),
        "colour",
    ),
    "too many pixels": (lambda p: file_of(p / "a.png", huge_png()), "too large"),
}


def huge_png() -> bytes:
    """A small PNG that claims 60,000 x 60,000 pixels."""
    import io
    import struct
    import zlib

    stream = io.BytesIO()
    Image.fromarray(GREY.astype(np.uint8)).save(stream, "PNG")
    content = bytearray(stream.getvalue())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_remedy(name: str, tmp_path: Path) -> None:
    make, words = BAD[name]
    path = make(tmp_path)
    with pytest.raises(ReadError, match=words) as refused:
        read_image(path)
    assert refused.value.remedy
    assert refused.value.where is not None
    assert "Secret" not in str(refused.value)


@pytest.mark.parametrize("syntax", ["rle", "jpegls", "j2k", "jpegll"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_truncated_compressed_dicom_is_refused(
    syntax: str, share: float, edge_case_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ReadError) as refused:
        read_image(cut(edge_case_folder / f"a0001_im18_{syntax}.dcm", tmp_path / "a.dcm", share))
    assert refused.value.remedy


@pytest.mark.parametrize("share", np.linspace(0.01, 0.99, 25))
def test_a_header_cut_anywhere_gives_no_foreign_error(share: float, tmp_path: Path) -> None:
    with pytest.raises(ReadError):
        read_image(cut(write_slice(tmp_path / "b", np.zeros((2, 2), np.uint16)), tmp_path / "a", share))


def test_a_damaged_slice_is_named(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / f"{k}.dcm", GREY, ImagePositionPatient=[0, 0, k])
    cut(tmp_path / "1.dcm", tmp_path / "1.dcm", 0.9)
    with pytest.raises(ReadError, match=r"1\.dcm"):
        read_image(tmp_path)


def test_a_slice_whose_depth_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_stack(tmp_path, np.zeros((3, 64, 64), np.uint16), [0, 2, 4], BitsStored=12, HighBit=11)
    damaged = sorted(tmp_path.iterdir())[1]
    depth = b"\x28\x00\x01\x01US"
    damaged.write_bytes(damaged.read_bytes().replace(depth + b"\x02\x00\x0c\x00", depth + b"\x01\x00\x0c"))
    with pytest.raises(ReadError) as refused:
        read_image(tmp_path)
    assert refused.value.where == str(damaged)


@pytest.mark.parametrize("index", [3, 99])
def test_a_slice_that_is_not_there(index: int, tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / "s" / f"{k}.dcm", GREY, ImagePositionPatient=[0, 0, k])
    for path in (tmp_path / "s", volume(tmp_path / "v.nrrd", np.zeros((3, 4, 5), np.int16))):
        with pytest.raises(ReadError, match=r"not in 0\.\.2"):
            read_image(path, slice_index=index)


def test_a_series_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="no series '7'"):
        read_image(two_series(tmp_path), series="7")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_slice(tmp_path / "a.dcm", GREY)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(ReadError, match="Permission denied"):
        read_image(file)


def test_a_spacing_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="--spacing-mm"):
        read_image(write_slice(tmp_path / "a.dcm", GREY), spacing_mm=(0.0, 1.0))
