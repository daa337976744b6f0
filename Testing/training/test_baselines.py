"""The baselines' trainers with their tiny preset on films made here, and the parts that are easily got wrong."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from Training.baselines.__main__ import NAMES, main
from Training.baselines.ddm import Ddm, DdmShape
from Training.baselines.fastgan import FastGan, FastGanShape
from Training.baselines.films import DeviceFilms, diff_augmented, moved
from Training.baselines.loop import LearningPart, LoopSettings, adam, train
from Training.baselines.samples import Samples
from Training.baselines.singan_film import chosen_films
from Training.baselines.styleswin import StyledBlock
from Training.vqgan_data import FilmTensors, load_film_tensors


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten films of 64 px, two of them held out; the first seven have ten padded columns left and right."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[0:64, 0:64] / 63
    grey = np.zeros((10, 64, 64), dtype=np.uint8)
    for film in grey:
        middle = 0.3 + 0.05 * rng.normal()
        lungs = np.exp(-(((column - middle) / 0.13) ** 2)) + np.exp(-(((column - 0.7) / 0.13) ** 2))
        film[:] = (180 - 130 * lungs * np.sin(np.pi * row) + rng.normal(0, 4, row.shape)).clip(0, 255)
    masks = np.ones_like(grey)
    masks[:7, :, :10] = masks[:7, :, -10:] = 0
    path = tmp_path_factory.mktemp("films") / "films.npz"
    np.savez(path, films=grey, masks=masks, held_out=np.arange(10) < 2)
    return path


def run(name: str, films: Path, out: Path, *more: str) -> Result:
    line = [name, "--preset", "baselines_tiny", "--films", str(films), "--out", str(out), *more]
    return CliRunner().invoke(main, line)


@pytest.mark.parametrize("name", NAMES)
def test_each_baseline_trains_and_leaves_its_films(films: Path, tmp_path: Path, name: str) -> None:
    result = run(name, films, tmp_path, "--samples", "3")
    assert result.exit_code == 0, result.output
    drawn = Samples.load(tmp_path / "samples.npz")
    assert drawn.seeds.tolist() == [1, 2, 3]
    assert drawn.films.shape == (3, drawn.facts["size"], drawn.facts["size"])
    assert drawn.films.dtype == np.uint8
    assert (drawn.facts["name"], drawn.facts["films"], drawn.facts["seed"]) == (name, 8, 1)
    assert not np.array_equal(drawn.films[0], drawn.films[1])
    assert np.asarray(Image.open(tmp_path / "samples.png")).shape[1] == 3 * drawn.facts["size"]
    large = drawn.enlarged(128)
    assert large.shape == (3, 128, 128)
    assert 0 <= large.min() < large.max() <= 1
    logs = [json.loads(line) for path in tmp_path.rglob("log.jsonl") for line in path.read_text().splitlines()]
    assert len(logs) >= 2
    numbers = [value for entry in logs for value in entry.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all()


@pytest.mark.parametrize("name", ["ddm", "fastgan"])
def test_resumed_run_equals_an_uncut_one(films: Path, tmp_path: Path, name: str) -> None:
    assert run(name, films, tmp_path / "whole", "--samples", "1").exit_code == 0
    assert run(name, films, tmp_path / "cut", "--samples", "1", "--steps", "3").exit_code == 0
    refused = run(name, films, tmp_path / "cut")
    assert refused.exit_code != 0
    assert "--resume" in refused.output
    refused = run(name, films, tmp_path / "cut", "--resume", "--seed", "2")
    assert refused.exit_code != 0
    assert "another seed" in refused.output
    assert run(name, films, tmp_path / "cut", "--samples", "1", "--resume").exit_code == 0
    whole, cut = (load_file(tmp_path / part / "checkpoint.safetensors") for part in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert any(key.startswith("generator_exp_avg_sq.") for key in whole)
    for key, value in whole.items():
        assert torch.equal(value, cut[key]), key


def test_vqgan_trained_further_gets_a_prior_of_its_new_codes(films: Path, tmp_path: Path) -> None:
    assert run("vqgan", films, tmp_path, "--samples", "1").exit_code == 0
    further = run("vqgan", films, tmp_path, "--samples", "1", "--steps", "6", "--resume")
    assert further.exit_code == 0, further.output
    assert len(list(tmp_path.glob("prior-*/prior.safetensors"))) == 2
    assert Samples.load(tmp_path / "samples.npz").facts["steps"] == 6


def test_it_stops_in_time_and_draws_what_it_has(films: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    result = run("ddm", films, tmp_path, "--samples", "2", "--steps", "1000000", "--time-limit", "0.02")
    assert result.exit_code == 0, result.output
    assert time.monotonic() - began < 30
    assert len(Samples.load(tmp_path / "samples.npz").films) == 2


def test_size_that_does_not_divide_is_refused_and_so_are_no_films(films: Path, tmp_path: Path) -> None:
    refused = run("ddm", films, tmp_path / "a", "--size", "48")
    assert refused.exit_code != 0
    assert "can't be reduced to 48" in refused.output
    for name, size in (("fastgan", "16"), ("styleswin", "64"), ("ddm", "1")):
        refused = run(name, films, tmp_path / "a", "--size", size)
        assert refused.exit_code != 0
        assert f"makes no films of {size} px" in refused.output
    refused = CliRunner().invoke(main, ["ddm", "--preset", "baselines_tiny", "--out", str(tmp_path / "b")])
    assert refused.exit_code != 0
    assert "--data FOLDER or --films FILE" in refused.output
    for content in (b"no archive", b"", b"PK\x03\x04 a cut archive"):
        (tmp_path / "not.npz").write_bytes(content)
        with pytest.raises(ReadError, match="no baseline's films"):
            Samples.load(tmp_path / "not.npz")


class _Sick:
    """A baseline whose loss is NaN from its third step on."""

    metrics: tuple[str, ...] = ("loss",)

    def __init__(self) -> None:
        network = nn.Linear(1, 1)
        self.parts: Mapping[str, LearningPart] = {
            "generator": LearningPart(network=network, optimiser=adam(network, 1e-3, (0.9, 0.99)))
        }
        self.steps = 0

    def update(self, film: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 (protocol)
        self.steps += 1
        return torch.tensor([math.nan if self.steps > 2 else 0.5])

    def draw(self, network: nn.Module, seeds: Sequence[int]) -> Tensor:  # noqa: ARG002 (protocol)
        return torch.zeros(len(seeds), 1, 8, 8)


def test_a_loss_that_is_no_number_ends_the_run(films: Path, tmp_path: Path) -> None:
    tensors = DeviceFilms(load_film_tensors(films, size=32), "cpu")
    settings = LoopSettings(batch=2, steps=10, report_every=2)
    with pytest.raises(HiResMedSynthError, match="isn't finite at step 4"):
        train(_Sick(), tensors, settings, out=tmp_path, description={})


def test_films_move_by_whole_pixels_and_padding_stays_padding(films: Path) -> None:
    image = torch.arange(25.0).view(1, 1, 5, 5)
    shifted = moved(image, torch.tensor([[1, -2]]))[0, 0]
    assert torch.equal(shifted[1:, :3], image[0, 0, :4, 2:])
    assert torch.equal(shifted[0], shifted[1])  # the border's grey where nothing came from
    batch = DeviceFilms(load_film_tensors(films, size=64), "cpu")
    batch.films, batch.masks = batch.films[:1], batch.masks[:1]  # 20 padded columns
    torch.manual_seed(0)
    film, mask = batch.batch(20)
    assert mask.sum(3).max() == 44
    assert mask[:, 0, :, 0].max() == 0 or mask[:, 0, :, -1].max() == 0
    assert film.abs().max() <= 1


def test_diff_augment_hides_a_hole_and_passes_gradients_to_what_is_seen() -> None:
    torch.manual_seed(3)
    images = torch.rand(2, 1, 16, 16).add(1).requires_grad_()
    changed = diff_augmented(images)
    assert ((changed == 0).flatten(1).sum(1) >= 16).all()
    (gradient,) = torch.autograd.grad(changed.sum(), images)
    assert set(gradient.unique().tolist()) <= {0.0, 1.0}
    assert gradient.sum() == (changed != 0).sum()


def test_padding_changes_nothing_in_a_gan(films: Path) -> None:
    tensors = load_film_tensors(films, size=64)
    film, mask = (part[2:6].float() for part in (tensors.films, tensors.masks))
    told = []
    for padding in (-1.0, 1.0):
        torch.manual_seed(0)
        pair = FastGan(FastGanShape(latent=4, width=4, critic_width=4), size=64, device="cpu", precision="float32")
        torch.manual_seed(1)
        told.append(pair.update(torch.where(mask > 0.5, film, padding), mask))
    assert torch.equal(told[0], told[1])


class _Knows(nn.Module):
    """Tells the noise exactly, since it knows the film."""

    def __init__(self, film: Tensor, kept: Tensor) -> None:
        super().__init__()
        self.film, self.kept = film, kept

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        kept = self.kept[time][:, None, None, None]
        return (noisy - kept.sqrt() * self.film) / (1 - kept).sqrt()


def test_ddim_finds_the_film_that_its_network_knows() -> None:
    model = Ddm(
        DdmShape(widths=(8,), attention=(False,), blocks=1, draw_steps=7), size=8, device="cpu", precision="float32"
    )
    assert 0.999 < float(model.kept[0]) < 1
    assert float(model.kept[-1]) < 1e-4
    film = torch.rand(1, 1, 8, 8) * 2 - 1
    drawn = model.draw(_Knows(film, model.kept), [5, 6])
    torch.testing.assert_close(drawn, film.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    network = model.parts["generator"].network.eval()
    several, alone = (model.draw(network, seeds) for seeds in ([1, 2], [2]))
    torch.testing.assert_close(several[1:], alone, atol=1e-4, rtol=0)


def test_window_attention_equals_attention_computed_window_by_window() -> None:
    torch.manual_seed(0)
    block, side, width = StyledBlock(64, 4), 16, 64
    nn.init.normal_(block.near)
    asked = torch.randn(1, side * side, 3 * width)
    got = block._attended(asked, side).view(side, side, 2, 32)
    query, key, value = asked.view(side, side, 3, 2, 32).unbind(2)
    for head, shift in ((0, 0), (1, 4)):
        for row in (0, 8):
            for column in (8,):
                places = [((row + r + shift) % side, (column + c + shift) % side) for r in range(8) for c in range(8)]
                inside = [(r, c) for r in range(8) for c in range(8)]
                bias = torch.stack(
                    [
                        torch.stack([block.near[head, (a - c + 7) * 15 + (b - d + 7)] for c, d in inside])
                        for a, b in inside
                    ]
                )
                q, k, v = (torch.stack([part[r, c, head] for r, c in places]) for part in (query, key, value))
                wanted = torch.softmax(q @ k.T / math.sqrt(32) + bias, dim=1) @ v
                found = torch.stack([got[r, c, head] for r, c in places])
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_singans_learn_films_that_fill_their_canvas_first(films: Path) -> None:
    tensors: FilmTensors = load_film_tensors(films, size=32)
    chosen = chosen_films(tensors, 5, seed=3)
    assert set(chosen[:3]) == {7, 8, 9}  # no padding
    assert all(index >= 2 for index in chosen)  # none is held out
    assert len(set(chosen)) == 5
