"""What the benchmarks of lesions reckon and draw."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion import singan_settings
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion_grid import crop_2d, to_grid
from HiResMedSynthLib.lesion.singan_settings import SinGanSettings
from HiResMedSynthLib.lesion.singan_train import train_singan
from Testing.benchmarks import fusion_speed, fusion_tables, lesion_sheets, lesion_speed, singan_gpu, singan_schedules


def test_a_whole_run_is_reckoned_from_a_few_steps_of_each_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def trained(_grids: Any, settings: Any, *, report: Callable[[dict[str, Any]], None], **_: Any) -> None:
        for scale in range(4):
            clock[0] += 100  # setting up
            for _step in range(settings.iterations_at(scale)):
                clock[0] += scale + 1
                report({"scale": scale})

    monkeypatch.setattr(lesion_speed, "train_singan", trained)
    monkeypatch.setattr(lesion_speed, "time", SimpleNamespace(process_time=lambda: clock[0]))
    # iterations of `better` at its four scales: 200, 300, 250, 200
    assert lesion_speed.reckoned_seconds(np.zeros((2, 64, 64)), "better") == 200 * 1 + 300 * 2 + 250 * 3 + 200 * 4


def test_the_ball_that_is_timed_is_a_ball_of_20_mm() -> None:
    lung = MedicalImage(
        pixels=np.full((30, 60, 60), -860, np.int16), modality="CT", units="HU", pixel_spacing_mm=(0.8, 0.8),
        spacing_source="header", slice_thickness_mm=1.5,
    )  # fmt: skip
    made = compose(lung, fusion_speed.ball_in(lung)).image
    volume = (made.pixels > -410).sum() * np.prod(made.spacing_mm)
    assert np.cbrt(6 * volume / np.pi) == pytest.approx(20, abs=0.3)


def test_a_sheet_begins_with_the_real_lesion_in_three_cuts_and_two_windows() -> None:
    bank, number = load_bank(), count()
    real = to_grid(bank.lesion("solid-09mm-d")).values

    def way(_name: str) -> np.ndarray:
        return np.full((15, 2, 32, 32, 32), float(next(number)), np.float32)  # lung, then 1,000 HU denser

    grey = np.asarray(lesion_sheets.sheet(bank, [way, way], ("solid-09mm-d",)))
    assert grey.shape == (6 * 32 + 4, 2 * (16 * 32 + 4))
    middle = real[0][16] * 1000 - 860
    for top, (low, high) in ((0, (-1400, 200)), (96, (-160, 240))):  # axial, lung and soft-tissue window
        shown = grey[top : top + 32, :32].astype(float) / 255
        np.testing.assert_allclose(shown, np.clip((middle - low) / (high - low), 0, 1), atol=0.01)
    assert (grey[:96, 32:512] == np.uint8(255 * 540 / 1600)).all()  # -860 HU in the lung window
    assert (grey[96:192, 32:512] == 0).all()
    assert (grey[:96, 516 + 32 : 1028] == np.uint8(255 * min(1540 / 1600, 1))).all()


def test_where_no_lesion_stands_the_table_says_so() -> None:
    head, _, row = fusion_tables.strand_table({"real": []})
    assert row.startswith("| real | 0 | - |")
    assert row.count("|") == head.count("|")


def test_finished_schedules_are_not_trained_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(name: str, _dims: int) -> SinGanSettings:
        return dataclasses.replace(singan_settings.preset("tiny", 2), name=name)

    flat = crop_2d(load_bank().lesion("solid-10mm-a"))[:, 17:47, 17:47]
    np.savez(tmp_path / "packed.npz", flats=flat[np.newaxis], flat_names=np.array(["one"]))
    line = [
        *("paper", "--data", str(tmp_path / "packed.npz"), "--out", str(tmp_path / "out")),
        *("--device", "cpu", "--iterations", "12"),
    ]
    monkeypatch.setattr(singan_gpu, "preset", small)

    def found() -> dict[str, Any]:
        assert CliRunner().invoke(singan_gpu.main, line, catch_exceptions=False).exit_code == 0
        return json.loads((tmp_path / "out" / "paper.json").read_text())  # type: ignore[no-any-return]

    with monkeypatch.context() as patched:
        asked = count()
        patched.setattr(singan_gpu, "train_singan", partial(train_singan, cancelled=lambda: next(asked) >= 15))
        assert not found()["paper"]["finished"]
    whole = found()
    models = {file: file.read_bytes() for file in (tmp_path / "out").rglob("singan-*.safetensors")}
    assert len(models) == 2
    again = found()
    assert {file: file.read_bytes() for file in models} == models
    for schedule in ("paper", "better"):
        log = (tmp_path / "out" / schedule / "log.jsonl").read_text().splitlines()
        assert again[schedule] == whole[schedule]
        assert again[schedule]["finished"]
        assert again[schedule]["seconds"] == round(json.loads(log[-1])["seconds"], 1)


def test_schedules_of_each_lesion_are_kept_and_a_killed_sitting_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def killed(*_: Any, report: Callable[[dict[str, Any]], None], **__: Any) -> None:
        clock[0] += 5
        report({})
        raise KeyboardInterrupt

    monkeypatch.setattr(singan_schedules, "train_singan", killed)
    both = SimpleNamespace(process_time=lambda: clock[0], monotonic=lambda: 2 * clock[0])
    monkeypatch.setattr(singan_schedules, "time", both)
    for sitting in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            singan_schedules.trained(np.zeros((2, 64, 64), np.float32), "paper", tmp_path, 1.0)
        assert json.loads((tmp_path / "seconds.json").read_text()) == {"cpu_s": 5 * sitting, "wall_s": 10 * sitting}

    monkeypatch.setattr(singan_schedules, "trained", lambda *_: (object(), {"cpu_s": clock[0]}))
    monkeypatch.setattr(singan_schedules, "measured", lambda _model, _grid, diversity: {"diversity": diversity})
    for lesion in (*singan_schedules.LESIONS[:2], singan_schedules.LESIONS[0]):
        clock[0] += 1
        line = ["--out", str(tmp_path), "--lesion", lesion]
        assert CliRunner().invoke(singan_schedules.main, line, catch_exceptions=False).exit_code == 0
    rows = json.loads((tmp_path / "singan_schedules.json").read_text())
    assert [row["lesion"] for row in rows] == [lesion for lesion in singan_schedules.LESIONS[:2] for _ in range(3)]
    assert [row["cpu_s"] for row in rows] == [13.0] * 3 + [12.0] * 3
