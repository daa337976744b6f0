"""The benchmark of CT danger maps: one nodule's site by every way, chests that are refused, parts kept one by one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from HiResMedSynthLib.errors import PlacementError
from HiResMedSynthLib.placement.chest_by_slice import find_regions_by_network
from HiResMedSynthLib.placement.network_ct import CLASSES
from HiResMedSynthLib.placement.regions_ct import ChestRegions
from Testing.benchmarks import danger_ct, danger_ct_sites
from Testing.placement.phantoms import chest_ct
from Testing.placement.test_danger_network_ct import NETWORK
from Training.checkpoint import CHECKPOINT
from Training.danger_ct_labels import LUNG, OUTSIDE, WALL
from Training.danger_ct_sources import LabelledStack
from Training.nodule_source import SourceNodule

SPACING_MM = (5.0, 2.5, 2.5)


def nodule_of(column: int) -> SourceNodule:
    """A nodule of 7 mm in the middle of the phantom, in row 80."""
    hu = chest_ct(10, noise_hu=20).pixels
    readers = np.zeros(hu.shape, np.uint8)
    readers[4:6, 79:82, column - 1 : column + 2] = 3
    row = {"index": "3", "patient_id": "LIDC-IDRI-0003", "diam_equiv_mm": "7.0"}
    row |= dict(zip(("dz_mm", "dy_mm", "dx_mm"), map(str, SPACING_MM), strict=True))
    return SourceNodule(row=row, hu=np.where(readers > 0, np.int16(30), hu), readers=readers)


@pytest.mark.parametrize(("column", "vetoed"), [(36, 0.0), (64, 1.0)])  # in the lung, in the mediastinum
def test_the_site_of_one_nodule_is_judged_by_every_way(
    column: int, vetoed: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def one(_folder: Path) -> Iterator[SourceNodule]:
        yield nodule_of(column)

    monkeypatch.setattr(danger_ct_sites, "nodules", one)
    found = danger_ct_sites.veto(tmp_path, {"A": NETWORK})
    for way in ("rule", "network", "both"):
        assert found[way]["n"] == 1
        assert found[way]["vetoed"][0] == vetoed
    assert found["vetoed by the rule only"] == found["vetoed by the network only"] == 0


def test_a_refused_chest_counts_as_one_in_which_nothing_was_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hu = chest_ct(2).pixels
    row, column = np.mgrid[:128, :128] * 2.5 - 160.0
    labels = np.where((column / 140) ** 2 + (row / 100) ** 2 < 1, WALL, OUTSIDE)
    abdomen = np.repeat(labels[np.newaxis].astype(np.uint8), 2, axis=0)
    chest = abdomen.copy()
    for side in (-1, 1):
        chest[:, ((column - side * 70) / 45) ** 2 + (row / 70) ** 2 < 1] = LUNG
    stacks = [
        LabelledStack(names=("1", "2"), patient=str(number), hu=hu, labels=truth, spacing_mm=SPACING_MM)
        for number, truth in enumerate((chest, chest, abdomen))
    ]
    monkeypatch.setattr(danger_ct, "read_stacks", lambda _: stacks)
    calls = iter((True, False, False))

    def find(hu: NDArray[np.int16], **how: Any) -> ChestRegions:
        if next(calls):
            return find_regions_by_network(hu, **how)
        raise PlacementError("no lung is in this image", remedy="")

    found = danger_ct.agreement(tmp_path, NETWORK, ("here",), find)["here"]
    assert found["chest stacks refused"] == "1 of 2"
    assert found["abdominal stacks refused"] == "1 of 1"
    assert found["slices"] == 4
    assert found["Dice"][CLASSES[LUNG]] == pytest.approx(2 / 3, abs=0.02)  # half of what is there, nothing wrong
    assert found["permitted forbidden"][0] == pytest.approx(0.5, abs=0.05)


def test_each_part_is_kept_as_soon_as_it_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def dies(*_: object) -> None:
        raise MemoryError

    for fold in ("foldA", "foldB"):
        (tmp_path / fold).mkdir()
        (tmp_path / fold / CHECKPOINT).touch()
    monkeypatch.setattr(danger_ct, "load_run", lambda _: NETWORK)
    monkeypatch.setattr(danger_ct, "diseased", lambda *_: [{"patient": "one"}])
    monkeypatch.setattr(danger_ct, "veto", dies)
    line = ["--data", tmp_path, "--runs", tmp_path, "--out", tmp_path / "out.json", "--only", "diseased"]
    result = CliRunner().invoke(danger_ct.main, [str(part) for part in (*line, "--only", "veto")])
    assert isinstance(result.exception, MemoryError)
    assert json.loads((tmp_path / "out.json").read_text()) == {"diseased": [{"patient": "one"}]}


@pytest.mark.parametrize(
    ("there", "parts", "told"),
    [
        ("A", (), "veto needs foldB/checkpoint.safetensors"),
        ("B", (), "diseased needs foldA/checkpoint.safetensors"),
        ("B", ("veto", "speed"), "or say --only speed."),
        ("", ("speed",), "neither foldA/checkpoint.safetensors nor foldB/checkpoint.safetensors"),
    ],
)
def test_a_fold_that_is_missing_is_told_before_anything_is_measured(
    there: str, parts: tuple[str, ...], told: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for fold in there:
        (tmp_path / f"fold{fold}").mkdir()
        (tmp_path / f"fold{fold}" / CHECKPOINT).touch()
    monkeypatch.setattr(danger_ct, "load_run", lambda _: NETWORK)
    line = ["--data", str(tmp_path), "--runs", str(tmp_path), *(f"--only={part}" for part in parts)]
    result = CliRunner().invoke(danger_ct.main, line)
    assert isinstance(result.exception, SystemExit)
    assert told in result.output
