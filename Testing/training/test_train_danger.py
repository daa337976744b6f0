"""The danger trainer on two phantoms with classes by hand, and what it refuses before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from safetensors.torch import load_file

from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.placement.network_ct import CLASSES, TASK
from Testing.placement.phantoms import chest_ct
from Training.danger_ct_data import DangerTask, load_task
from Training.danger_ct_disease import DENSE, KINDS, draw_disease
from Training.danger_ct_labels import (
    AIRWAY,
    ANY,
    BONE,
    LUNG,
    MEDIASTINUM,
    OUTSIDE,
    SOFT,
    SOLID,
    WALL,
    rule_labels,
)
from Training.danger_ct_sources import UNKNOWN, LabelledSlice, read_sources
from Training.picture_loop import PictureBatch
from Training.train_danger import main, names_of, planned

SIZE = 64


def classes_by_hand() -> NDArray[np.uint8]:
    """[2, SIZE, SIZE] classes of the phantom, a few unknown."""
    row, column = np.mgrid[:SIZE, :SIZE].astype(np.float32) * (320.0 / SIZE) - 160.0
    named = np.zeros((SIZE, SIZE), dtype=np.uint8)
    named[(column / 140) ** 2 + (row / 100) ** 2 < 1] = WALL
    for side in (-1, 1):
        named[((column - side * 70) / 45) ** 2 + (row / 70) ** 2 < 1] = LUNG
    named[column**2 + (row + 20) ** 2 < 9.0**2] = AIRWAY
    named[0, :5] = UNKNOWN
    return np.stack([named, named])


def write(path: Path, pixels: NDArray[np.generic]) -> None:
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((320.0 / SIZE, 320.0 / SIZE, 5.0))
    sitk.WriteImage(image, str(path))


def patient(folder: Path, name: str, labels: NDArray[np.uint8] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}_ct.nrrd", chest_ct(2, SIZE).pixels)
    write(folder / f"{name}_ct_danger.nrrd", classes_by_hand() if labels is None else labels)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ct")
    patient(folder, "P1")
    return patient(folder, "P2")


def run(data: Path, out: Path, *more: str) -> Result:
    said = ["--domain", "lung-ct", "--data", str(data), "--preset", "danger_tiny", "--out", str(out)]
    return CliRunner().invoke(main, [*said, "--hold-out", "P2", *more])


def test_training_reports_and_resumes_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert "patients held out: 1" in whole.output
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 2, 4]
    assert (tmp_path / "whole" / "report.html").is_file()
    described = json.loads((tmp_path / "whole" / "report.json").read_text())["description"]
    assert described["plan"]["task"] == TASK
    assert tuple(described["plan"]["classes"]) == CLASSES
    assert run(data, tmp_path / "cut", "--steps", "2").exit_code == 0
    assert run(data, tmp_path / "cut", "--resume").exit_code == 0
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    fine = run(data, tmp_path / "fine", "--start-from", str(tmp_path / "whole"), "--steps", "2")
    assert fine.exit_code == 0, fine.output
    told = json.loads((tmp_path / "fine" / "report.json").read_text())["description"]
    assert told["began_with"] == described["data_sha256"]
    again = run(data, tmp_path / "whole")
    assert again.exit_code == 1
    assert "--resume" in again.output


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((2, SIZE, SIZE), np.uint8), "no lung"),
        (np.full((2, SIZE, SIZE), LUNG, np.uint8), "nothing but lung"),
        (classes_by_hand()[:, :32], "the size"),
        (np.where(classes_by_hand() == WALL, 7, classes_by_hand()).astype(np.uint8), "no classes"),
        (
            np.select([classes_by_hand() == WALL, classes_by_hand() == LUNG], [LUNG, WALL], 0).astype(np.uint8),
            "contradict",
        ),
    ],
)
def test_labels_that_cannot_be_are_refused_before_training(
    tmp_path: Path, labels: NDArray[np.uint8], words: str
) -> None:
    patient(tmp_path / "ct", "P1")
    patient(tmp_path / "ct", "P2", labels)
    refused = run(tmp_path / "ct", tmp_path / "out")
    assert refused.exit_code == 1
    assert words in refused.output
    assert "P2_ct_danger.nrrd" in refused.output
    assert not (tmp_path / "out").exists()


def test_a_split_that_cannot_be_is_refused(data: Path, tmp_path: Path) -> None:
    one = patient(tmp_path / "one", "P1")
    with pytest.raises(ReadError, match="one patient"):
        load_task([one], batch=2)
    with pytest.raises(ReadError, match="nobody here is called P9"):
        load_task([data], batch=2, hold_out=["P9"])
    with pytest.raises(ReadError, match="one side"):
        load_task([data], batch=2, hold_out=["P1", "P2"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReadError, match="no CT"):
        read_sources([tmp_path / "empty"])
    task = load_task([data], batch=2, hold_out=["nobody"])
    assert task.counts["patients held out"] == 0
    assert len(task.measured_batches(held_out=True)) == 12


def test_names_come_from_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("P1\nP2\n")
    assert names_of([str(tmp_path / "names.txt"), "P3"]) == ["P1", "P2", "P3"]


def test_a_preset_changes_only_the_layers(data: Path) -> None:
    plan = load_task([data], batch=2, hold_out=["P2"]).plan
    assert planned(plan, {"decoder": [8, 8, 8, 8, 8]}).decoder == (8, 8, 8, 8, 8)
    with pytest.raises(SettingsError, match="unknown entry"):
        planned(plan, {"task": "danger-film"})


def test_batches_follow_the_generator_alone(data: Path) -> None:
    task = load_task([data], batch=3, hold_out=["P2"])
    one, other, third = (task.train_batch(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.picture, other.picture)
    assert not torch.equal(one.picture, third.picture)
    assert float(one.picture.abs().max()) <= 1


def test_a_set_of_classes_costs_nothing_where_one_of_them_is_said() -> None:
    task = DangerTask([], [], batch=1, seed=1)
    said = torch.tensor([[OUTSIDE, WALL, BONE, MEDIASTINUM, LUNG, LUNG]])
    logits = (torch.nn.functional.one_hot(said, len(CLASSES)).permute(0, 2, 1)[..., None] * 40.0).float()

    def loss(labels: list[int]) -> float:
        batch = PictureBatch(picture=torch.zeros(1), targets={"labels": torch.tensor(labels)[None, :, None]})
        return float(task.loss(logits, batch))

    assert loss([OUTSIDE, SOLID, SOLID, SOFT, LUNG, ANY]) < 1e-6
    assert loss([OUTSIDE, SOLID, SOFT, SOFT, LUNG, ANY]) > 1  # bone is not among wall and mediastinum
    assert loss([ANY] * 6) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_disease_stays_in_the_lung_and_dense_disease_is_dense(kind: str) -> None:
    hu = chest_ct(1, 128).pixels[0].astype(np.float32)
    labels = rule_labels(chest_ct(1, 128).pixels, spacing_mm=(5.0, 2.5, 2.5))[0]
    ill = draw_disease(hu, labels, np.random.default_rng(1), mm=2.5, kind=kind)
    changed = ill != hu
    near = np.zeros(changed.shape, dtype=bool)
    rows, columns = np.nonzero(labels == LUNG)
    near[rows.min() - 3 : rows.max() + 4, columns.min() - 3 : columns.max() + 4] = True
    assert changed.any()
    assert not (changed & ~near).any()
    if kind in DENSE:
        assert (ill[(labels == LUNG) & changed] > -150).any()


def test_the_rules_labels_name_the_phantom() -> None:
    labels = rule_labels(chest_ct(3, 128).pixels, spacing_mm=(5.0, 2.5, 2.5), first_chest_slice=0)[1]
    assert labels[2, 2] == OUTSIDE
    assert labels[64, 10] == WALL
    assert labels[80, 36] == LUNG
    assert labels[56, 64] == AIRWAY
    assert labels[45, 64] == MEDIASTINUM


def test_a_nodule_crop_stands_in_a_frame_of_unknown_class() -> None:
    crop = LabelledSlice(
        name="c", patient="N1", folder="f", hu=np.full((30, 30), -800, np.int16), labels=np.full((30, 30), LUNG),
        crop=True,
    )  # fmt: skip
    batch = DangerTask([crop], [], batch=1, seed=1).train_batch(np.random.default_rng(0))
    labels = batch.targets["labels"]
    assert set(labels.unique().tolist()) == {LUNG, ANY}
    assert 0.02 < float((labels == LUNG).float().mean()) < 0.35
