"""The block against its equations, worked by hand in numpy, and the network's promises."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.background.flow_unet import FlowUNet, FlowUNetShape
from HiResMedSynthLib.background.hdfb import BETTER, HDFB, PAPER, BlockReading, DropPath, MSConvFE, initialise_as_paper
from HiResMedSynthLib.flow import sample, sampling_times, spread_times
from Training.draws import Draws

Array = NDArray[np.float64]


def convolve(x: Array, weight: Array, bias: Array, *, groups: int = 1) -> Array:
    """[out, row, column]: the sum of Eq. 12's convolution, written out; zero padding."""
    out, per_group, size, _ = weight.shape
    margin = size // 2
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin)))
    result = np.zeros((out, *x.shape[1:]))
    for channel in range(out):
        first = channel // (out // groups) * per_group
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                window = padded[first : first + per_group, row : row + size, column : column + size]
                result[channel, row, column] = (window * weight[channel]).sum() + bias[channel]
    return result


def normalise(x: Array, *, groups: int) -> Array:
    parts = x.reshape(groups, -1)
    centred = (parts - parts.mean(1, keepdims=True)) / np.sqrt(parts.var(1, keepdims=True) + 1e-6)
    return centred.reshape(x.shape)


def numbers(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    return tensor.detach().double().numpy()


def by_hand(block: MSConvFE, x: Array) -> Array:
    """GroupNorm, Conv 3x3, ReLU, depthwise Conv 5x5, Conv 1x1: Eq. 12 without DropPath and skip."""
    spread = convolve(normalise(x, groups=1), numbers(block.spread.weight), numbers(block.spread.bias))
    spread = np.maximum(spread, 0)
    deep = convolve(spread, numbers(block.depthwise.weight), numbers(block.depthwise.bias), groups=4)
    return convolve(deep, numbers(block.mix.weight), numbers(block.mix.bias))


@pytest.fixture
def x() -> Array:
    return np.random.default_rng(0).normal(size=(4, 6, 5))


def test_msconvfe_is_eq_12(x: Array) -> None:
    torch.manual_seed(0)
    block = MSConvFE(4, PAPER).double().eval()
    result = block(torch.from_numpy(x)[None])[0].detach().numpy()
    np.testing.assert_allclose(result, x + by_hand(block, x), atol=1e-10)


def test_hdfb_is_eqs_2_to_8_with_both_skips(x: Array) -> None:
    torch.manual_seed(1)
    block = HDFB(4, reading=PAPER).double().eval()
    first = block.first
    assert isinstance(first, torch.nn.Conv2d)
    silu = lambda v: v / (1 + np.exp(-v))  # noqa: E731 (Eqs. 3, 4)
    inner = convolve(silu(normalise(x, groups=1)), numbers(first.weight), numbers(first.bias))
    inner = silu(normalise(inner, groups=1))
    expected = x + inner + by_hand(block.fuse, inner)  # Eq. 8 around Eq. 12, each with its own skip
    np.testing.assert_allclose(block(torch.from_numpy(x)[None])[0].detach().numpy(), expected, atol=1e-10)


def test_literal_equations_have_no_first_convolution() -> None:
    literal = HDFB(16, reading=dataclasses.replace(PAPER, first_convolution=False))
    text = HDFB(16, reading=PAPER)
    count = [sum(p.numel() for p in block.parameters()) for block in (literal, text)]
    assert count[1] - count[0] == 16 * 16 * 9 + 16


def test_better_block_starts_as_identity_and_follows_its_modulation() -> None:
    block = HDFB(8, reading=BETTER, modulation=3).eval()
    image = torch.randn(2, 8, 8, 8)
    assert torch.equal(block(image, torch.ones(2, 3)), image)
    torch.nn.init.ones_(block.fuse.mix.weight)
    assert block.modulate is not None
    torch.nn.init.ones_(block.modulate.weight)
    assert not torch.allclose(block(image, torch.ones(2, 3)), block(image, torch.zeros(2, 3)))


@pytest.mark.parametrize("reading", [BETTER, PAPER, dataclasses.replace(PAPER, first_convolution=False)])
@pytest.mark.parametrize("images", [1, 2])
def test_drawing_is_training_s_arithmetic_and_leaves_its_input_alone(reading: BlockReading, images: int) -> None:
    torch.manual_seed(0)
    block = HDFB(8, reading=reading, modulation=3).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image, modulation = torch.randn(images, 8, 9, 7), torch.randn(images, 3)
    given = image.clone()
    expected = block(image, modulation).detach()
    with torch.no_grad():
        torch.testing.assert_close(block(image, modulation), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(image, given)


def test_drop_path_drops_whole_samples_in_training_only() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.5)
    branch = torch.ones(200, 2, 3, 3)
    kept = drop(branch).flatten(1)
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amin(1), kept.amax(1))
    assert torch.equal(drop.eval()(branch), branch)


def test_paper_initialisation() -> None:
    block = HDFB(64, reading=PAPER)
    initialise_as_paper(block)
    assert float(block.fuse.spread.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(numbers(block.fuse.spread.bias).max()) == 0


SHAPE = FlowUNetShape(
    condition_channels=1, patch=2, widths=(8, 16), blocks=(1, 1), attention=(False, True), classes=2, coordinates=True
)


def test_network_keeps_the_size_and_starts_at_zero() -> None:
    network = FlowUNet(SHAPE)
    image = torch.randn(3, 1, 16, 24)
    velocity = network(image, torch.rand(3), condition=torch.ones_like(image), label=torch.tensor([0, 1, 2]))
    assert velocity.shape == image.shape
    assert float(velocity.detach().abs().max()) == pytest.approx(0, abs=0.2)


def test_a_condition_seen_once_tells_the_same() -> None:
    torch.manual_seed(0)
    network = FlowUNet(SHAPE).eval()
    torch.nn.init.normal_(network.last.weight, std=0.1)
    condition, time = torch.randn(2, 1, 16, 24), torch.tensor([0.2, 0.7])
    seen = network.see(condition)
    for noisy in torch.randn(2, 2, 1, 16, 24):
        expected = network(noisy, time, condition=condition)
        torch.testing.assert_close(network(noisy, time, seen=seen), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(noisy, time, condition=-condition), expected, atol=1e-3)


def test_precondition_is_the_best_linear_guess() -> None:
    network = FlowUNet(dataclasses.replace(SHAPE, precondition=True))
    torch.nn.init.zeros_(network.last.bias)
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 64, 1, 32, 32, generator=generator)
    for time in (0.1, 0.5, 0.8):
        noisy = (1 - time) * noise + time * data
        guess = network(noisy, torch.full((64,), time), condition=torch.ones_like(noisy)).detach()
        slope = float((noisy * (data - noise)).mean() / noisy.square().mean())  # least squares
        assert torch.allclose(guess, slope * noisy, atol=0.1)


def test_shape_survives_json() -> None:
    listed = {name: list(v) if isinstance(v, tuple) else v for name, v in SHAPE.to_json().items()}
    assert FlowUNetShape.from_json(listed) == SHAPE


def test_sampler_follows_a_straight_flow_exactly() -> None:
    goal, noise = torch.full((2, 1, 4, 4), 3.0), torch.randn(2, 1, 4, 4)
    for jump in (1.0, 0.9):
        made = sample(lambda _x, _t: goal - noise, noise, times=sampling_times(3, jump=jump))
        assert torch.allclose(made, goal, atol=1e-5)


def test_heun_is_nearer_than_euler_on_a_bent_flow() -> None:
    start = torch.ones(1, 1, 2, 2)
    errors = [
        abs(float(sample(lambda x, _t: -x, start, times=sampling_times(4), heun=h)[0, 0, 0, 0]) - np.exp(-1))
        for h in (True, False)
    ]
    assert errors[0] < errors[1]


def test_times_are_logit_normal() -> None:
    drawn = Draws.seeded(0, "cpu").times(20_000, mean=0, sd=1)
    assert float(drawn.median()) == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(spread_times(9).flip(0), 1 - spread_times(9), atol=1e-6)
    assert float(torch.logit(drawn).std()) == pytest.approx(1, abs=0.03)


def test_bent_times_crowd_towards_the_jump_and_end_where_even_ones_do() -> None:
    even, bent = (sampling_times(6, jump=0.9, bend=bend) for bend in (1.0, 2.0))
    assert even.tolist() == pytest.approx([0, 0.18, 0.36, 0.54, 0.72, 0.9, 1])
    assert bent.tolist() == pytest.approx([0, 0.324, 0.576, 0.756, 0.864, 0.9, 1])  # .9 (1 - (1 - k / 5)^2)
    assert sampling_times(2, bend=2.0).tolist() == [0, 0.75, 1]
