"""A reader study is blinded, balanced, seeded and whole; what could tell the sides apart is made equal or refused."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from HiResMedSynthLib.errors import ExportError, HiResMedSynthError
from HiResMedSynthLib.evaluation.reader_study import LETTERS, StudyError, open_study, read_key
from HiResMedSynthLib.evaluation.study_make import StudyPlan, new_study
from HiResMedSynthLib.image import Window
from Testing.evaluation.study_folders import (
    SIDE,
    labelled_folder,
    picture_folder,
    pixels_of,
    small_study,
    texture,
)
from Testing.labelled_folders import put_volume


def quiet(*_: object) -> None:
    pass


def make(real: Path, made: Path, out: Path, **fields: Any) -> Any:
    plan = StudyPlan(**{"task": "yes-no", "count": 8, "readers": ("Ann",), **fields})
    return new_study(real, made, out, plan, progress=quiet)


def test_nothing_that_is_served_tells_what_is_real(tmp_path: Path) -> None:
    study, key = small_study(tmp_path)
    design = (study.folder / "design.json").read_text(encoding="utf-8")
    assert not [word for word in ("synthetic", "real", "p00", "p10", "made", "seed") if word in design]
    assert Counter(entry.synthetic for entry in key.images.values()) == {True: 4, False: 4}
    kinds = {(pixels_of(study, token).shape, pixels_of(study, token).max()) for token in key.images}
    assert kinds == {((SIDE, SIDE), 4095)}
    heads = {(study.folder / "images" / f"{token}.u16.gz").read_bytes()[:10] for token in key.images}
    assert len(heads) == 1  # same encoder, no time, no name
    names = sorted(key.images)
    by_name = "".join("s" if key.images[token].synthetic else "r" for token in names)
    assert by_name not in ("rrrrssss", "ssssrrrr")


def test_every_reader_sees_all_in_an_order_of_their_own_and_the_seed_decides(tmp_path: Path) -> None:
    study, _ = small_study(tmp_path)
    orders = {reader: [trial[0].token for trial in study.trials(reader)] for reader in ("Ann", "Ben")}
    assert orders["Ann"] != orders["Ben"]
    assert sorted(orders["Ann"]) == sorted(orders["Ben"]) == sorted(study.design.images)
    first = {path.name: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    shutil.rmtree(study.folder)
    again, _ = small_study(tmp_path)
    assert {path.name: path.read_bytes() for path in again.folder.rglob("*") if path.is_file()} == first
    shutil.rmtree(study.folder)
    other, _ = small_study(tmp_path, seed=6)
    assert other.sha256 != again.sha256


@pytest.mark.parametrize(("task", "size"), [("2afc", 2), ("4afc", 4)])
def test_a_choice_holds_one_synthetic_image_at_each_position_as_often(tmp_path: Path, task: Any, size: int) -> None:
    study, key = small_study(tmp_path, task=task)
    assert study.choices() == tuple(LETTERS[:size])
    for reader in ("Ann", "Ben"):
        made = [[key.images[one.token].synthetic for one in trial] for trial in study.trials(reader)]
        assert all(sum(trial) == 1 for trial in made)
        assert set(Counter(trial.index(True) for trial in made).values()) == {8 // size}
    sets = [{frozenset(one.token for one in trial) for trial in study.trials(reader)} for reader in ("Ann", "Ben")]
    assert sets[0] == sets[1]


def test_depth_of_grey_is_no_clue(tmp_path: Path) -> None:
    """Real pictures of 8 bits, synthetic ones of 16: both end with the same number of greys."""
    picture_folder(tmp_path / "real", 24)
    picture_folder(tmp_path / "made", 8, first=100, bits=16)
    study, key = small_study(tmp_path)
    greys = {token: np.unique(pixels_of(study, token)) for token in key.images}
    levels = next(int(note.split()[5]) for note in key.notes if "grey levels" in note)
    assert 100 < levels <= 256
    allowed = {round(k * 4095 / (levels - 1)) for k in range(levels)}
    for token, found in greys.items():
        assert set(found.tolist()) <= allowed, key.images[token]
        assert len(found) > 0.9 * levels  # none is coarser than the others


def test_ct_keeps_its_hounsfield_units_and_rings_are_alike(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "real", 4, radius=3)
    labelled_folder(tmp_path / "made", 4, first=50, radius=6)
    study, key = make(tmp_path / "real", tmp_path / "made", tmp_path / "study", readers=("Ann", "Ben"))
    assert study.design.window == (-600, 1500)
    sizes = {entry.synthetic: entry.size_mm for entry in key.images.values()}
    assert sizes[False] == pytest.approx(6 * 0.7, rel=0.1) and sizes[True] == pytest.approx(12 * 0.7, rel=0.1)
    assert any("differ in size" in note for note in key.notes)
    marks = {}
    for reader in ("Ann", "Ben"):
        for (shown,) in study.trials(reader):
            assert shown.mark is not None and study.design.mark_radius is not None
            rows, columns = np.nonzero(pixels_of(study, shown.token) == 40 + 1024)  # the lesion, in HU + 1024
            far = np.hypot(rows - shown.mark[0], columns - shown.mark[1]).max()
            assert far < study.design.mark_radius  # moved a little, yet around all of it
            marks[reader, shown.token] = shown.mark
    assert marks["Ann", shown.token] != marks["Ben", shown.token]


def test_crops_hold_their_lesions(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "real", 4)
    labelled_folder(tmp_path / "made", 4, first=50)
    study, key = make(tmp_path / "real", tmp_path / "made", tmp_path / "study", crop=(24, 20))
    assert (study.design.rows, study.design.columns, study.design.mark_radius) == (24, 20, None)
    for token in key.images:
        assert (pixels_of(study, token) == 1064).sum() > 20
    picture_folder(tmp_path / "plain", 6)
    with pytest.raises(StudyError, match="larger than an image"):
        make(tmp_path / "real", tmp_path / "made", tmp_path / "large", crop=(200, 200))
    assert not (tmp_path / "large").exists()


def test_the_key_can_be_kept_apart_and_must_be_the_right_one(tmp_path: Path) -> None:
    picture_folder(tmp_path / "real", 4)
    picture_folder(tmp_path / "made", 4, first=100)
    plan = StudyPlan(task="yes-no", count=8, readers=("Ann",), seed=1)
    study, key = new_study(
        tmp_path / "real", tmp_path / "made", tmp_path / "study", plan, key=tmp_path / "k.json", progress=quiet
    )
    assert read_key(study, tmp_path / "k.json") == key
    if os.name == "posix":
        assert (tmp_path / "k.json").stat().st_mode & 0o077 == 0  # nobody else's to read
    with pytest.raises(StudyError, match="key of the study can't be read"):
        read_key(study)
    document = json.loads((tmp_path / "k.json").read_text())
    token = next(iter(document["images"]))
    document["images"][token]["synthetic"] = not document["images"][token]["synthetic"]
    (tmp_path / "k.json").write_text(json.dumps(document))
    with pytest.raises(StudyError, match="not the one"):
        read_key(study, tmp_path / "k.json")


def test_without_a_place_for_its_key_no_study_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture_folder(tmp_path / "real", 4)
    picture_folder(tmp_path / "made", 4, first=100)
    plan = StudyPlan(task="yes-no", count=8, readers=("Ann",), seed=1)
    folders = tmp_path / "real", tmp_path / "made", tmp_path / "study"
    with pytest.raises(ExportError, match="the study's own name"):
        new_study(*folders, plan, key=tmp_path / "study", progress=quiet)

    def full(_source: Path, target: Path) -> None:
        target.write_text("{")  # as far as the other disk had room
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "move", full)
        with pytest.raises(ExportError, match="No space left"):
            new_study(*folders, plan, key=tmp_path / "k.json", progress=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"real", "made"}

    def refused(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(ExportError, match="Permission denied"):
        new_study(*folders, plan, key=tmp_path / "k.json", progress=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"real", "made"}


REFUSED = {
    "odd number": ({"count": 9}, "can't be balanced"),
    "too few to say anything": ({"count": 4}, "fewer than 6"),
    "more than there are": ({"count": 40}, "needs 20"),
    "no readers": ({"readers": ("",)}, "no name"),
    "a reader twice": ({"readers": ("Ann", "Ann ")}, "different names"),
    "a name with a line break": ({"readers": ("A\nB",)}, "no name"),
    "a window for pictures": ({"window": Window(center=0, width=100)}, "over their own range"),
    "a ring in a crop": ({"ring": True, "crop": (32, 32)}, "in the middle of a crop"),
    "a crop of nothing": ({"crop": (8, 32)}, "shows nothing"),
    "a ring without lesions": ({"ring": True}, "needs a marked lesion"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_plan_that_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    fields, match = REFUSED[name]
    with pytest.raises(StudyError, match=match):
        small_study(tmp_path, **fields)
    assert {path.name for path in tmp_path.iterdir()} <= {"real", "made"}


def copied(tmp_path: Path, change: Any) -> None:
    """A synthetic folder of which one picture is a real one, changed."""
    picture_folder(tmp_path / "real", 4)
    picture_folder(tmp_path / "made", 3, first=100)
    picture = cv2.imread(str(tmp_path / "real" / "p002.png"), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(tmp_path / "made" / "x.png"), change(picture))


SAME = {
    "equal": lambda p: p,
    "mirrored": lambda p: p[:, ::-1],
    "brighter": lambda p: np.clip(p * 1.1 + 5, 0, 255).astype(np.uint8),
    "with a lesion": lambda p: cv2.circle(p.copy(), (20, 20), 2, 255, -1),
}


@pytest.mark.parametrize("name", SAME)
def test_a_patient_on_both_sides_is_refused_by_name_of_the_pictures(tmp_path: Path, name: str) -> None:
    copied(tmp_path, SAME[name])
    with pytest.raises(HiResMedSynthError, match=r"same patient is on both sides: p002.png and x.png"):
        make(tmp_path / "real", tmp_path / "made", tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_one_folder_for_both_sides_is_refused(tmp_path: Path) -> None:
    picture_folder(tmp_path / "real", 8)
    with pytest.raises(HiResMedSynthError, match="same patient is on both sides"):
        make(tmp_path / "real", tmp_path / "real", tmp_path / "study")


def test_what_differs_between_the_sides_is_refused(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "ct", 4)
    labelled_folder(tmp_path / "window", 4, first=20, window=Window(center=40, width=400))
    picture_folder(tmp_path / "small", 4, first=200, side=40)
    picture_folder(tmp_path / "pictures", 4, first=300)
    picture_folder(tmp_path / "one", 1, first=400)
    for made, match in (
        ("window", "windows differ"),
        ("pictures", "modalities differ"),
        ("one", "has 1 image"),
        ("nowhere", "no such file"),
    ):
        with pytest.raises(HiResMedSynthError, match=match):
            make(tmp_path / "ct", tmp_path / made, tmp_path / "study")
    with pytest.raises(StudyError, match="sizes differ") as caught:
        make(tmp_path / "pictures", tmp_path / "small", tmp_path / "study")
    assert "--crop" in caught.value.remedy and "--resample" not in caught.value.remedy
    study, _ = make(tmp_path / "ct", tmp_path / "window", tmp_path / "study", window=Window(center=-500, width=1400))
    assert study.design.window == (-500, 1400)


def test_slices_of_one_patient_are_used_only_when_asked_and_said(tmp_path: Path, ct_series_folder: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(ct_series_folder, tmp_path / "real" / name)
    picture_folder(tmp_path / "made", 8)
    with pytest.raises(StudyError, match="--slices"):
        make(tmp_path / "real", tmp_path / "made", tmp_path / "study")
    with pytest.raises(StudyError, match="all real images are of one patient"):
        make(tmp_path / "real", tmp_path / "made", tmp_path / "study", slices=12)


def test_further_slices_of_a_patient_are_taken_for_want_of_other_patients_alone(tmp_path: Path) -> None:
    for name, first in (("real", 0), ("made", 100)):
        for patient in range(12):
            place = tmp_path / name / f"p{patient}"
            grey = np.stack([texture(first + 3 * patient + k) for k in range(3)])
            put_volume(place.with_suffix(".nii.gz"), np.round(grey * 800 - 1000).astype(np.int16))
    window = Window(center=-600, width=900)
    _, key = make(tmp_path / "real", tmp_path / "made", tmp_path / "study", slices=3, window=window)
    whose = [(told.synthetic, told.source.split("#")[0]) for told in key.images.values()]
    assert len(set(whose)) == len(whose) == 8


def test_a_study_that_was_changed_is_not_opened(tmp_path: Path) -> None:
    study, key = small_study(tmp_path)
    token = next(iter(key.images))
    path = study.folder / "images" / f"{token}.u16.gz"
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(whole)))  # the same pixels, other bytes: a clue
    with pytest.raises(StudyError, match="was changed since"):
        study.check_pictures()
    path.unlink()
    with pytest.raises(StudyError, match="can't be read"):
        study.check_pictures()
    design = study.folder / "design.json"
    document = json.loads(design.read_text())
    document["readers"]["Ann"] = document["readers"]["Ann"][1:]
    for damaged in (b"", b"{", b"[]", json.dumps(document).encode()):
        design.write_bytes(damaged)
        with pytest.raises(StudyError, match="damaged"):
            open_study(study.folder)
    with pytest.raises(StudyError, match="study new"):
        open_study(tmp_path)
