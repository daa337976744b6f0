"""A site's own folder in the form that the tasks of placement's trainers take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from HiResMedSynthLib.errors import ReadError
from Testing.labelled_folders import film, masks, nnunet, put, write, yolo
from Training import danger_ct_sources, danger_film_sources
from Training.danger_ct_labels import ANY, BONE, LUNG
from Training.erased_pairs import erased
from Training.erased_store import load_erased
from Training.location_data import SIDE
from Training.site_material import ct_slices, is_site_folder, labelled_films, lung_patches


def chest(seed: int, side: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """(HU, classes) `[slice, row, column]` of a body with two lungs, a spine and a nodule in slices 1 to 3."""
    rows, columns = np.mgrid[:side, :side]
    rng = np.random.default_rng(seed)
    hu = np.full((5, side, side), -1000.0)
    hu[:, np.hypot((rows - 80) / 62, (columns - 80) / 72) < 1] = 30.0
    classes = np.zeros(hu.shape, np.uint8)
    for middle in (48, 112):
        lung = np.hypot((rows - 78) / 44, (columns - middle) / 24) < 1
        hu[:, lung], classes[:, lung] = -860.0, 1
    spine = np.hypot(rows - 118, columns - 80) < 9
    hu[:, spine], classes[:, spine] = 400.0, 2
    nodule = np.hypot(rows - 70, columns - 48) < 4
    hu[1:4, nodule], classes[1:4, nodule] = 20.0, 3
    return (hu + rng.normal(0, 12, hu.shape)).astype(np.int16), classes


def site(folder: Path, count: int = 3) -> Path:
    for number in range(count):
        for name, array in zip(("images", "masks"), chest(number), strict=True):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((2.2, 2.2, 3.0))
            (folder / name).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(volume, str(folder / name / f"v{number}.nii.gz"))
    write(folder / "classes.json", '{"1": "lung", "2": "spine", "3": "nodule"}')
    write(folder / "patients.csv", "file,patient\n" + "".join(f"v{k}.nii.gz,p{k}\n" for k in range(count)))
    return folder


def test_slices_hold_the_sites_labels_over_those_of_the_rule(tmp_path: Path) -> None:
    slices = ct_slices(site(tmp_path / "in"))
    assert {one.patient for one in slices} == {"p0", "p1", "p2"}
    one = slices[0]
    assert one.hu.dtype == np.int16
    assert one.hu.shape == one.labels.shape
    scale = one.hu.shape[0] / 160

    def at(row: float, column: float) -> int:
        return int(one.labels[round(row * scale), round(column * scale)])

    assert at(90, 112) == LUNG
    assert at(118, 80) == BONE
    assert at(3, 3) == 0
    nodule = next(one for one in slices if one.name.endswith("slice 2"))
    assert int(nodule.labels[round(70 * scale), round(48 * scale)]) == ANY


def test_films_know_what_the_site_labels(tmp_path: Path) -> None:
    films = labelled_films(masks(tmp_path / "in"))
    assert len(films) == 4
    one = films[0]
    assert min(one.film.shape) == 280
    lungs, heart = one.there[0], one.there[1]
    assert lungs.any()
    assert heart.any()
    assert not one.sure[0][heart].any()  # behind the heart nobody said whether there is lung
    assert one.sure[0][lungs].all()
    assert not one.sure[2:-1].any()
    assert np.array_equal(one.there[-1], lungs)


def test_lesions_become_patches_that_can_be_erased(tmp_path: Path) -> None:
    patches = lung_patches(site(tmp_path / "in"))
    assert len(patches) == 3  # one a lesion, not one a slice
    for patch in patches:
        assert patch.hu.shape == (SIDE, SIDE)
        rows, columns = np.nonzero(patch.lesion)
        assert rows.mean() == pytest.approx(SIDE / 2, abs=1)
        assert columns.mean() == pytest.approx(SIDE / 2, abs=1)
        assert patch.hu[patch.lesion].mean() > -300
        assert patch.lung[patch.lesion].mean() > 0.9
    made = erased(patches[0], np.random.default_rng(1), shams=5)
    assert made.shams


def test_folders_of_sites_are_known(tmp_path: Path) -> None:
    assert is_site_folder(nnunet(tmp_path / "a"))
    assert is_site_folder(yolo(tmp_path / "b"))
    put(tmp_path / "c" / "images" / "x.png", film(1))
    assert not is_site_folder(tmp_path / "c")
    (tmp_path / "b" / "classes.txt").unlink()
    assert is_site_folder(tmp_path / "b")  # what is wrong with it is told when it is read
    with pytest.raises(ReadError, match="no file names the classes"):
        lung_patches(tmp_path / "b")


def test_the_trainers_readers_take_a_sites_folder(tmp_path: Path) -> None:
    slices = danger_ct_sources.read_sources([site(tmp_path / "ct")])
    assert {one.patient for one in slices} == {"p0", "p1", "p2"}
    assert {int(value) for one in slices for value in np.unique(one.labels)} >= {LUNG, BONE}
    found = danger_film_sources.read_sources([masks(tmp_path / "films")])
    assert len(found.films) == 4
    assert not found.volumes
    made, _ = load_erased(tmp_path / "ct", tmp_path / "erased.npz", shams=5)
    assert {item.patch.patient_id for item in made} == {"p0", "p1", "p2"}
    again, _ = load_erased(tmp_path / "ct", tmp_path / "erased.npz", shams=5)
    assert [item.true.centre for item in again] == [item.true.centre for item in made]
