"""Priors over codes: true probabilities, no look at what is hidden, draws a seed repeats, files of one codebook."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.film_network import CodeShape, FilmNetwork
from HiResMedSynthLib.background.flow_unet import FlowUNetShape
from HiResMedSynthLib.background.quantiser import FSQ
from HiResMedSynthLib.background.token_gpt import GptPrior
from HiResMedSynthLib.background.token_layers import KINDS, PriorShape, mixed, pick, to_digits
from HiResMedSynthLib.background.token_masked import MaskedPrior, halton_order, revealed
from HiResMedSynthLib.background.token_prior import (
    TokenPrior,
    build_prior,
    encoder_fingerprint,
    load_prior,
    save_prior,
)
from HiResMedSynthLib.errors import ReadError, SettingsError

LEVELS = (3, 2, 2)
GRID = 4


def small_prior(kind: str, *, spread: float = 0.4) -> MaskedPrior | GptPrior:
    """Untrained, but with weights large enough that everything it is told matters."""
    torch.manual_seed(0)
    network = build_prior(PriorShape(kind=kind, levels=LEVELS, grid=GRID, width=16, depth=2, heads=2))
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=spread)
    return network.eval()


def wrapped(kind: str) -> TokenPrior:
    return TokenPrior(network=small_prior(kind), fingerprint="f")


def random_digits(count: int, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.stack([rng.integers(0, level, (count, GRID, GRID)) for level in LEVELS], axis=1))


def surprise(network: MaskedPrior | GptPrior, digits: Tensor, told: Tensor, **changes: Tensor) -> Tensor:
    count = len(digits)
    inputs = {"seen": digits, "field": torch.ones(count, GRID, GRID), "label": torch.zeros(count, dtype=torch.long)}
    with torch.no_grad():
        found: Tensor = network.surprise(digits, told=told, **{**inputs, **changes})
    return found


def test_halton_order_holds_every_place_once_and_spreads() -> None:
    order = halton_order(16)
    assert sorted(order.tolist()) == list(range(256))
    for count, blocks in ((16, 12), (48, 16)):  # of the 4 x 4 blocks of 4 x 4 places
        first = order[:count]
        assert len({(int(place) // 64, int(place) % 16 // 4) for place in first}) >= blocks
    shifted = halton_order(16, shift=(3, 5))
    row, column = order // 16, order % 16
    assert torch.equal(shifted, (row + 3) % 16 * 16 + (column + 5) % 16)


def test_few_codes_are_revealed_first_and_all_at_the_end() -> None:
    ends = revealed(256, 16)
    assert ends[0] == round(256 * (1 - math.acos(1 / 16) / (math.pi / 2))) == 10
    assert ends[-1] == 256
    steps = np.diff([0, *ends])
    assert (steps > 0).all()
    assert steps[-1] == steps.max()
    assert revealed(3, 16) == [1, 2, 3]
    assert revealed(256, 256) == list(range(1, 257))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_of_all_codes_of_a_position_sum_to_one(kind: str) -> None:
    network = small_prior(kind)
    every = FSQ(LEVELS).to_digits(torch.arange(12)[:, None, None].expand(12, GRID, GRID))
    rest = random_digits(1).expand(12, -1, -1, -1).clone()
    rest[:, :, 1, 2] = every[:, :, 1, 2]
    told = torch.ones(12, GRID, GRID, dtype=torch.bool)
    told[:, 1, 2] = False
    chances = torch.exp(-surprise(network, rest, told)[:, 1 * GRID + 2])
    assert float(chances.sum()) == pytest.approx(1, abs=1e-5)
    assert float(chances.std()) > 0.01


def test_masked_prior_sees_told_codes_and_nothing_of_hidden_ones() -> None:
    network = small_prior("masked")
    digits, other = random_digits(1), random_digits(1, seed=1)
    told = torch.zeros(1, GRID, GRID, dtype=torch.bool)
    told[0, 0] = True
    plain = surprise(network, digits, told)
    hidden_changed = torch.where(told[:, None], digits, other)
    assert torch.equal(surprise(network, digits, told, seen=hidden_changed), plain)
    assert not torch.allclose(surprise(network, digits, told, seen=other), plain)


def test_gpt_sees_only_what_is_before() -> None:
    network = small_prior("gpt")
    digits = random_digits(1)
    later = digits.clone()
    later[:, :, 2:] = random_digits(1, seed=1)[:, :, 2:]
    told = torch.zeros(1, GRID, GRID, dtype=torch.bool)
    plain, changed = surprise(network, digits, told), surprise(network, digits, told, seen=later)
    assert torch.allclose(plain[:, : 2 * GRID + 1], changed[:, : 2 * GRID + 1])
    assert not torch.allclose(plain[:, 2 * GRID + 1 :], changed[:, 2 * GRID + 1 :])


def test_gpt_draws_by_its_memory_what_it_would_without() -> None:
    network = small_prior("gpt")
    assert isinstance(network, GptPrior)
    label, field = torch.tensor([1]), torch.ones(1, GRID, GRID)
    drawn = network.draw(
        torch.zeros(1, 3, GRID, GRID, dtype=torch.long), told=torch.zeros(1, GRID, GRID, dtype=torch.bool),
        field=field, label=label, rng=np.random.default_rng(0), steps=1, temperature=0, guidance=1,
    )  # fmt: skip
    indices = network.quantise.to_index(drawn).flatten(1)
    with torch.no_grad():
        assert torch.equal(network(indices, field=field, label=label).argmax(-1), indices)
    assert len(indices.unique()) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_repeats_its_codes_however_many_are_asked(kind: str) -> None:
    prior = wrapped(kind)
    codes = prior.sample(3, seed=5, encoder_fingerprint="f", sex="F")
    assert codes.shape == (3, 3, GRID, GRID)
    assert torch.equal(FSQ(LEVELS).to_values(to_digits(codes, LEVELS)), codes)
    assert torch.equal(prior.sample(1, seed=6, encoder_fingerprint="f", sex="F"), codes[1:2])
    assert not torch.equal(codes[0], codes[1])
    other = prior.sample(3, seed=5, encoder_fingerprint="f", sex="M")
    assert not torch.equal(other, codes)
    assert not torch.equal(prior.sample(3, seed=5, encoder_fingerprint="f", sex="F", guidance=4.0), codes)


@pytest.mark.parametrize("kind", KINDS)
def test_known_codes_stay_and_the_others_are_drawn(kind: str) -> None:
    prior = wrapped(kind)
    codes = FSQ(LEVELS).to_values(random_digits(1, seed=3))
    known = torch.zeros(1, 1, GRID, GRID)
    known[..., 1:3, :] = 1
    drawn = prior.sample(4, seed=1, encoder_fingerprint="f", codes=codes, known=known)
    assert torch.equal(drawn * known, (codes * known).expand(4, -1, -1, -1))
    assert not torch.equal(drawn, codes.expand(4, -1, -1, -1))
    all_known = torch.ones_like(known)
    assert torch.equal(prior.sample(1, seed=1, encoder_fingerprint="f", codes=codes, known=all_known), codes)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]])).expand(20_000, 3)
    share = torch.bincount(pick(logits, np.random.default_rng(0), 1.0), minlength=3) / len(logits)
    assert share.tolist() == pytest.approx([0.7, 0.2, 0.1], abs=0.015)
    squared = torch.bincount(pick(logits, np.random.default_rng(0), 0.5), minlength=3) / len(logits)
    assert squared.tolist() == pytest.approx([0.49 / 0.54, 0.04 / 0.54, 0.01 / 0.54], abs=0.015)
    assert pick(logits, np.random.default_rng(0), 0).eq(0).all()


def test_guidance_is_a_line_through_told_and_untold() -> None:
    told, untold = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    assert torch.equal(mixed(torch.stack([told, untold]), 1.0), told)
    assert mixed(torch.stack([told, untold]), 3.0).tolist() == [[3.0, -1.0]]


def test_impossible_choices_are_refused() -> None:
    prior = wrapped("masked")
    with pytest.raises(SettingsError, match="another background model, not for this one"):
        prior.sample(1, seed=1, encoder_fingerprint="other")
    with pytest.raises(SettingsError, match="no sex X"):
        prior.sample(1, seed=1, encoder_fingerprint="f", sex="X")
    with pytest.raises(SettingsError, match="numbers"):
        prior.sample(1, seed=1, encoder_fingerprint="f", temperature=-1)
    with pytest.raises(SettingsError, match="numbers"):
        prior.sample(1, seed=1, encoder_fingerprint="f", temperature=float("nan"))
    with pytest.raises(SettingsError, match="numbers"):
        prior.sample(1, seed=1, encoder_fingerprint="f", known=torch.ones(1, 1, GRID, GRID))
    with pytest.raises(SettingsError, match="can't be"):
        PriorShape(width=16, heads=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_gives_the_prior_back_and_tells_its_codebook(kind: str, tmp_path: Path) -> None:
    network, path = small_prior(kind), tmp_path / "prior.safetensors"
    save_prior(network, path, fingerprint="mine", facts={"steps": 7})
    prior = load_prior(path, encoder_fingerprint="mine")
    assert (prior.fingerprint, prior.facts["steps"]) == ("mine", 7)
    digits, told = random_digits(2), torch.zeros(2, GRID, GRID, dtype=torch.bool)
    assert torch.allclose(surprise(prior.network, digits, told), surprise(network, digits, told), atol=0.05)
    with pytest.raises(ReadError, match="trained for another background model") as refused:
        load_prior(path, encoder_fingerprint="another")
    assert "train_token_prior" in refused.value.remedy
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReadError, match="no token prior"):
        load_prior(path)


def test_fingerprint_changes_with_the_encoder_alone_and_survives_half_precision() -> None:
    torch.manual_seed(0)
    shape = FlowUNetShape.from_json(
        {"condition_channels": 1, "patch": 2, "widths": [8, 16], "blocks": [1, 1], "attention": [False, True],
         "classes": 2, "coordinates": True, "dropout": 0.0}
    )  # fmt: skip
    network = FilmNetwork(shape, CodeShape(widths=(8, 8, 8), blocks=(1, 1, 1)))
    own = encoder_fingerprint(network)
    network.load_state_dict({name: value.half().float() for name, value in network.state_dict().items()})
    assert encoder_fingerprint(network) == own
    with torch.no_grad():
        next(network.flow.parameters()).add_(1)
        assert encoder_fingerprint(network) == own
        next(network.encoder.parameters()).add_(0.5)
    assert encoder_fingerprint(network) != own
