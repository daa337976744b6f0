"""Nodules as grids from voi.npz and voi.csv; what a folder lacks is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from HiResMedSynthLib.errors import ReadError
from Training.nodule_grids import main
from Training.nodule_source import nodules

COLUMNS = "index,key,patient_id,dz_mm,dy_mm,dx_mm,diam_equiv_mm,texture,calcification,spiculation,lobulation,malignancy"
ROW = "0,P-1_R_1,P-1,1.0,1.0,1.0,6,5,6,2,2,3"


def folder_of(place: Path, *, columns: str = COLUMNS, row: str = ROW) -> Path:
    """One crop of 4 x 6 x 5 voxels of -800 HU with two marked ones."""
    place.mkdir()
    steps = np.zeros((4, 6, 5), np.int32)
    steps[..., 0] = -800
    zigzag = np.where(steps >= 0, 2 * steps, -2 * steps - 1).ravel()
    readers = np.zeros(zigzag.size, np.uint8)
    readers[60:62] = 3
    np.savez(
        place / "voi.npz",
        lo=(zigzag & 255).astype(np.uint8), hi=(zigzag >> 8).astype(np.uint8), readers=readers,
        offset=np.array([0, zigzag.size]), shape=np.array([steps.shape]),
    )  # fmt: skip
    (place / "voi.csv").write_text(f"{columns}\n{row}\n")
    return place


def told(folder: Path, out: Path) -> str:
    """What the command says of a folder that it refuses."""
    result = CliRunner().invoke(main, [str(folder), "--out", str(out / "nodules.npz")])
    assert isinstance(result.exception, SystemExit), result.exception
    assert not (out / "nodules.npz").exists()
    return result.output


def test_nodules_are_read_as_they_were_stored(tmp_path: Path) -> None:
    (found,) = nodules(folder_of(tmp_path / "voi"))
    assert (found.hu == -800).all()
    assert (found.majority.sum(), found.spacing_mm, found.type) == (2, (1.0, 1.0, 1.0), "solid")
    assert "no nodule here can be used" in told(tmp_path / "voi", tmp_path)  # it is no bank's


@pytest.mark.parametrize("name", ["voi.csv", "voi.npz"])
def test_a_missing_file_is_told_by_its_name(name: str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "voi")
    (folder / name).unlink()
    assert f"there is no {name} in this folder" in told(folder, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK no archive", "cut", "npy"])
def test_a_damaged_archive_is_told(content: bytes | str, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "voi")
    path = folder / "voi.npz"
    if content == "npy":
        with path.open("wb") as stream:
            np.save(stream, np.zeros(3))
    else:
        path.write_bytes(path.read_bytes()[:300] if isinstance(content, str) else content)
    assert "voi.npz or voi.csv can't be read" in told(folder, tmp_path)


@pytest.mark.parametrize(
    ("columns", "row", "what"),
    [
        ("index,patient_id", "0,P-1", "voi.csv lacks key"),
        (COLUMNS, ROW.replace("0,", "7,", 1), "has no nodule 7"),
        (COLUMNS, ROW.replace("0,", "x,", 1), "has no nodule x"),
        (COLUMNS.replace("dz_mm", "thick"), ROW, "no number dz_mm for the nodule P-1_R_1"),
        (COLUMNS, ROW.rsplit(",", 6)[0], "no number diam_equiv_mm for the nodule P-1_R_1"),
    ],
)
def test_a_table_of_something_else_is_told(columns: str, row: str, what: str, tmp_path: Path) -> None:
    assert what in told(folder_of(tmp_path / "voi", columns=columns, row=row), tmp_path)


def test_the_error_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"no voi.npz") as refused:
        next(nodules(tmp_path))
    assert refused.value.where == str(tmp_path)
