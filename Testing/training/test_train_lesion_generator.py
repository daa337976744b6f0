"""The lesion generator's trainer with its tiny preset, and the generator that comes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from safetensors.torch import load_file

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import BankError, ReadError, SettingsError
from HiResMedSynthLib.flow import guided, sample, sampling_times
from HiResMedSynthLib.lesion.flow_net import LesionFlowNet, LesionNetShape
from HiResMedSynthLib.lesion.generators import Wish, generator_for
from HiResMedSynthLib.lesion.learned import (
    DENSEST_TISSUE,
    HAZE,
    from_channels,
    is_whole,
    load_learned,
    possible,
    to_channels,
)
from Training.draws import Draws
from Training.pack_lesion_generator import pack
from Training.report import write_report
from Training.train_lesion_generator import load_arrays, main, mirrored, warp


def ball(radii: tuple[float, float, float]) -> NDArray[np.float32]:
    """[2, 32, 32, 32] a soft ellipsoid of soft-tissue density."""
    at = np.stack(np.meshgrid(*[np.arange(32) - 15.5] * 3, indexing="ij"))
    distance = np.sqrt(sum((at[k] / radii[k]) ** 2 for k in range(3)))
    alpha = np.clip((1.1 - distance) * 5, 0, 1)
    return np.stack([0.9 * alpha, alpha]).astype(np.float32)


@pytest.fixture(scope="module")
def nodules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nodules") / "nodules.npz"
    rng = np.random.default_rng(0)
    count = 10
    arrays: dict[str, Any] = {
        "values": np.stack([ball(tuple(rng.uniform(7, 12, 3))) for _ in range(count)]).astype(np.float16),
        "type": np.zeros(count, dtype=int),
        "held_out": np.arange(count) < 3,
        "strict": np.arange(count) % 2 == 0,
        "patient_id": np.array([f"P{n}" for n in range(count)]),
    }
    arrays |= {name: rng.uniform(1, 5, count).astype(np.float32) for name in ("spiculation", "lobulation")}
    arrays |= {"diameter_mm": rng.uniform(4, 20, count), "noise_hu": rng.uniform(3, 15, count)}
    np.savez(path, **arrays)
    return path


def run(nodules: Path, out: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["--data", str(nodules), "--preset", "lesion_tiny", "--out", str(out), *more])


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(nodules: Path, tmp_path: Path) -> None:
    whole = run(nodules, tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    assert "7 nodules to train on, 3 held out" in whole.output
    lines = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["measured_train"] < lines[0]["measured_train"]
    assert (tmp_path / "whole" / "report.html").is_file()
    assert run(nodules, tmp_path / "cut", "--steps", "3").exit_code == 0
    assert run(nodules, tmp_path / "cut", "--resume").exit_code == 0
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_run_becomes_a_model_of_the_store(nodules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIRESMEDSYNTH_MODELS", str(tmp_path / "store"))
    assert run(nodules, tmp_path / "run").exit_code == 0
    assert run(nodules, tmp_path / "fast", "--teacher", str(tmp_path / "run")).exit_code == 0
    card = pack(
        tmp_path / "fast", tmp_path / "m.safetensors", name="mine", data="balls", licence="CC0", attribution="us"
    )
    assert card.data == "balls (7 nodules to train on)"
    added = weights.add(tmp_path / "m.safetensors")
    learned = load_learned(added.path)
    assert learned.shortcut == (0.0, 0.5, 1.0)
    properties = np.zeros((2, 10), np.float32)
    made = learned.values(properties, rng=np.random.default_rng(1))
    assert made.shape == (2, 2, 32, 32, 32)
    np.testing.assert_array_equal(made, learned.values(properties, rng=np.random.default_rng(1)))
    assert generator_for("learned").identity.startswith("learned ")
    from HiResMedSynthLib.lesion.bank import load_bank

    wish, bank = Wish(type="solid", diameter_mm=9), load_bank()
    drawn = generator_for("learned").draw(wish, bank, np.random.default_rng(0))
    assert drawn.lesion.card.diameter_mm == 9
    monkeypatch.setattr("HiResMedSynthLib.lesion.learned.is_whole", lambda _: False)
    with pytest.raises(BankError, match="no usable lesion"):
        generator_for("learned").draw(wish, bank, np.random.default_rng(0))


def test_a_run_without_a_step_fails_and_is_no_model(nodules: Path, tmp_path: Path) -> None:
    cut = run(nodules, tmp_path / "cut", "--time-limit", "0.0000001")
    assert cut.exit_code == 1
    assert "No step was done" in cut.output
    assert "longer --time-limit" in cut.output
    write_report(tmp_path / "cut", {"stage": "lesion"})
    with pytest.raises(SettingsError, match="after no step"):
        pack(tmp_path / "cut", tmp_path / "m.safetensors", name="m", data="", licence="CC0", attribution="us")
    assert run(nodules, tmp_path / "cut", "--resume").exit_code == 0


def test_untaught_layers_leave_the_guess_from_each_voxels_mean_and_spread() -> None:
    """Data that are the same everywhere come back from any noise; where they differ, samples differ as much."""
    data = torch.cat([torch.full((8, 1, 8, 8, 8), 3.0), torch.randn(8, 1, 8, 8, 8)], dim=1)
    network = LesionFlowNet(LesionNetShape(widths=(8, 8), blocks=(1, 1), side=8))
    network.know(data)
    velocity = guided(network, properties=torch.zeros(64, 10), level=torch.zeros(64))
    made = sample(velocity, torch.randn(64, 2, 8, 8, 8), times=sampling_times(40))
    assert float((made[:, 0] - 3).abs().max()) < 0.3  # the smallest spread is .05
    assert float(made[:, 1].std()) == pytest.approx(1, abs=0.1)


def test_channels_and_back_and_what_a_whole_lesion_is() -> None:
    values = torch.from_numpy(np.stack([ball((9, 9, 9)), ball((5, 8, 11))]))
    torch.testing.assert_close(from_channels(to_channels(values)), values)
    two = ball((4, 4, 4)).copy()
    two = np.maximum(np.roll(two, 9, axis=3), np.roll(two, -9, axis=3))
    assert is_whole(values[0].numpy())
    assert not is_whole(two)
    assert not is_whole(np.zeros((2, 32, 32, 32), np.float32))


def test_samples_are_made_possible_without_changing_what_is_dense() -> None:
    values = torch.from_numpy(ball((9, 9, 9)))[None]
    hazy = values.clone()
    hazy[:, 1] += torch.where(values[:, 1] == 0, 0.015, 0.0)
    hazy[:, 0, :2] = -1.0
    hazy[:, 0, 16, 16, 16] = 50.0
    made = possible(hazy)
    assert float(made[:, :, :2].abs().max()) == 0
    assert torch.equal(made[:, 1] == 0, values[:, 1] <= HAZE)
    dense = values[0, 1] == 1
    dense[16, 16, 16] = False
    assert torch.allclose(made[0][:, dense], values[0][:, dense])
    assert float(made[0, 0, 16, 16, 16]) == pytest.approx(DENSEST_TISSUE)


def test_changes_keep_the_lesion_inside_and_about_its_size() -> None:
    values = torch.from_numpy(np.stack([ball((7, 9, 10))] * 6))
    turned = mirrored(values, Draws.seeded(0, "cpu"))
    assert turned.sum() == pytest.approx(float(values.sum()), rel=1e-6)
    assert not torch.equal(turned, values)
    bent = warp(values, Draws.seeded(0, "cpu"))
    share = bent[:, 1].sum(dim=(1, 2, 3)) / values[:, 1].sum(dim=(1, 2, 3))
    assert 0.6 < float(share.min()) <= float(share.max()) < 1.6
    edge = torch.cat([bent[:, 1, 0], bent[:, 1, -1], bent[:, 1, :, 0], bent[:, 1, :, -1]])
    assert float(edge.max()) < 0.05


def test_other_files_are_refused(tmp_path: Path, nodules: Path) -> None:
    whole = nodules.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    spoiled = whole[:500] + b"spoiled" + whole[507:]
    for content in (b"nothing", b"", whole[:-1000], spoiled, (tmp_path / "array.npy").read_bytes()):
        (tmp_path / "no.npz").write_bytes(content)
        with pytest.raises(ReadError, match="no file of nodules"):
            load_arrays(tmp_path / "no.npz")
    with np.load(nodules) as stored:
        np.savez(tmp_path / "one.npz", **{**stored, "held_out": np.zeros(10, bool)})
    with pytest.raises(ReadError, match="one side of the split"):
        load_arrays(tmp_path / "one.npz")
    with pytest.raises(BankError, match="no learned lesion generator"):
        load_learned(tmp_path / "no.npz")
