"""Which images a folder of several data sets, or of files with odd names, holds, and whose they are."""

from __future__ import annotations

from pathlib import Path

from HiResMedSynthLib.evaluation.image_sets import find_images
from Testing.evaluation.test_image_sets import case, dicom_films


def test_data_sets_beside_one_another_keep_their_patients(tmp_path: Path) -> None:
    """Two data sets of the same three slices of two patients, drawn with other seeds."""
    for name in "ab":
        for seed in range(3):
            case(tmp_path / name / f"cases/000/case_{seed}", seed=seed)
        rows = "".join(f"case_{k},{group}\n" for k, group in enumerate((7, 7, 8) if name == "a" else (1, 1, 2)))
        (tmp_path / name / "manifest.csv").write_text("image,patient_group\n" + rows)
    groups = [one.group for one in find_images(tmp_path)]
    assert len(set(groups)) == 2
    assert groups[:3] == groups[3:]


def test_dicom_files_named_by_their_uid_are_images(tmp_path: Path) -> None:
    folder = dicom_films(tmp_path / "films", range(3))
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"1.2.840.113619.2.{number}")
    (folder / "notes.of.mine").write_text("no image")
    assert len(find_images(folder)) == 3
