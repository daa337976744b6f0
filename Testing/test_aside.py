"""Files that stand under their name only when whole, and those judged by their first bytes before a library reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.read_bounds import refuse_deflated_bomb
from HiResMedSynthLib.write_volume import write_whole
from Testing.slices import write_slice, write_stack


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    earlier = os.umask(request.param)
    yield request.param
    os.umask(earlier)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_a_file_has_the_permissions_that_the_user_gives(umask: int, tmp_path: Path) -> None:
    with written_aside(tmp_path / "a.txt") as aside:
        aside.write_text("whole", encoding="utf-8")
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["MAP.NII.GZ", "X.NII", "x.Nrrd", "a.b.nii.gz", "x.MHA"])
def test_a_volume_may_be_named_in_capitals(name: str, tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    with written_aside(tmp_path / name) as aside:
        write_whole(sitk.GetImageFromArray(values), aside, useCompression=True)
    assert np.array_equal(read_image(tmp_path / name).pixels, values)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_volume_that_holds_no_number_somewhere_is_whole_too(tmp_path: Path) -> None:
    write_whole(sitk.GetImageFromArray(np.array([[[1, np.nan]]], np.float32)), tmp_path / "a.nrrd")
    assert np.isnan(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nrrd")))[0, 0, 1])


def test_a_directory_that_names_a_deflated_file_is_none_itself(tmp_path: Path) -> None:
    write_stack(tmp_path, np.zeros((2, 4, 5), np.uint16), [0, 2])
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedTransferSyntaxUIDInFile = DeflatedExplicitVRLittleEndian
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory = FileDataset("", {}, preamble=bytes(128), file_meta=meta)
    directory.DirectoryRecordSequence = [record]
    directory.save_as(tmp_path / "index", enforce_file_format=True)
    assert read_image(tmp_path).slices == 2


def test_what_unpacks_to_too_much_is_refused_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_slice(tmp_path / "a.dcm", np.zeros((64, 64), np.uint16), syntax=DeflatedExplicitVRLittleEndian)
    refuse_deflated_bomb(file)
    monkeypatch.setattr("HiResMedSynthLib.read_bounds.LARGEST_INFLATED", 2**10)
    with pytest.raises(ReadError, match="unpacks to more than"):
        refuse_deflated_bomb(file)
