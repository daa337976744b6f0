"""`better` against `vqgan`: both arms train and rebuild; the table of what `train` left."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from Testing.benchmarks import equal_quality
from Testing.benchmarks.equal_quality import held_out_films, main, reached, smaller_films
from Testing.benchmarks.equal_quality_arms import Arm, Better, PlainVqgan
from Testing.test_privacy import chest
from Training.film_data import Film, FilmSet
from Training.film_stages import CoarseFilm, make_stage
from Training.preset_files import read_preset


def test_both_arms_train_and_rebuild_films() -> None:
    preset = smaller_films(read_preset("tiny"))
    assert preset["data"] == {"canvas_px": 128, "spacing_mm": 3.36}  # the same 430 mm, twice the 64 px made
    pixels = np.stack([chest(seed).reshape(128, 2, 128, 2).mean(axis=(1, 3)) for seed in range(6)]).astype(np.float32)
    films = FilmSet(
        pixels=pixels,
        films=tuple(
            Film(name=str(k), patient=str(k), label=0, held_out=k < 2, field=(16, 0, 96, 128)) for k in range(6)
        ),
        spacing_mm=3.36,
    )
    shown, fields = held_out_films(films, 2)
    assert shown.shape == fields.shape == (2, 64, 64)
    assert fields.mean() == 0.75
    assert shown[1] == pytest.approx(pixels[1].reshape(64, 2, 64, 2).mean(axis=(1, 3)), abs=1e-6)
    stage = make_stage("film", preset, films)
    assert isinstance(stage, CoarseFilm)
    arms: list[Arm] = [
        Better(films, preset, device="cpu"),
        PlainVqgan(stage, "tiny", faster=1, perceptual=None, device="cpu"),
    ]
    for arm in arms:
        before = arm.facts()
        assert arm.train(0.2) > 0.1
        assert sum(v for k, v in arm.facts().items() if "steps" in k) > sum(
            v for k, v in before.items() if "steps" in k
        )
        made = arm.rebuild(shown, fields)
        assert made.shape == shown.shape
        assert np.isfinite(made).all()
        assert np.abs(made).max() <= 1
        assert np.array_equal(made, arm.rebuild(shown, fields))


def test_what_train_left_becomes_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equal_quality, "st_lpips", lambda: lambda a, b: (a - b).abs().mean(dim=(1, 2, 3)))
    real = np.full((2, 8, 8), 100, np.uint8)
    fields = np.ones((2, 8, 8), bool)
    off = {"better 0": 40, "better 1": 10, "vqgan 0": 60, "vqgan 1": 20}  # grey levels
    np.savez(tmp_path / "films.npz", real=real, fields=fields, **{name: real + by for name, by in off.items()})
    seconds = {"better 0": 1.0, "better 1": 4.0, "vqgan 0": 2.0, "vqgan 1": 12.0}
    entries = [
        {"arm": key.split()[0], "mark": int(key[-1]), "seconds": s, "l1": 0.0, "steps": 10.0 * s}
        for key, s in seconds.items()
    ]
    (tmp_path / "train.json").write_text(json.dumps({"entries": entries}))
    done = CliRunner().invoke(main, ["measure", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    found = json.loads((tmp_path / "equal_quality.json").read_text())["entries"]
    assert [round(entry["both"] * 127.5) for entry in found] == [80, 20, 120, 40]
    assert reached(found, "better", 40 / 127.5) == pytest.approx(3.0)  # two thirds of the way from 80 to 20
    assert reached(found, "better", 10 / 127.5) is None
    assert "| vqgan at 12.0 s (0.314) | 12.0 | 3.0 | 0.25 |" in done.output
    assert (tmp_path / "curves.png").is_file()
    assert torch.is_grad_enabled()
