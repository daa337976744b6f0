"""What the benchmarks of lesions reckon and draw."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.lesion_grid import to_grid
from Testing.benchmarks import fusion_speed, lesion_sheets, lesion_speed


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
