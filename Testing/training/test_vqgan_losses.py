"""Eq. 1 and the adversaries against numbers worked by hand."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from HiResMedSynthLib.background.vqgan import Reconstruction
from HiResMedSynthLib.evaluation.st_lpips import st_lpips
from Training.discriminators import MultiScaleDiscriminator, UNetDiscriminator, high_pass
from Training.vqgan_losses import (
    ImageChange,
    LeCam,
    adaptive_weight,
    apply_image_change,
    consistency,
    draw_boxes,
    draw_image_change,
    equation_1,
    head_weights,
    hinge_of_discriminator,
    hinge_of_generator,
    load_perceptual,
    perceptual_on_crops,
    separation,
)


def test_eq_1_by_hand() -> None:
    image, made = torch.zeros(1, 1, 2, 2), torch.tensor([[1.0, 2.0], [3.0, 99.0]]).reshape(1, 1, 2, 2)
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).reshape(1, 1, 2, 2)  # the fourth pixel is padding
    result = Reconstruction(
        image=made, indices=torch.zeros(1, 1, 1), commitment=torch.tensor(5.0), codebook=torch.tensor(7.0)
    )
    terms = equation_1(result, image, mask, perceptual=torch.tensor(0.25), adversarial=torch.tensor(-0.5))
    assert float(terms.reconstruction) == pytest.approx((1 + 4 + 9) / 3)
    assert float(terms.total()) == pytest.approx(14 / 3 + 1.0 * 5 + 0.33 * 7 + 0.25 - 0.5)
    swapped = equation_1(result, image, mask, alpha=0.25, gamma=1.0)
    assert float(swapped.total()) == pytest.approx(14 / 3 + 0.25 * 5 + 7)


REAL = [torch.tensor([2.0, 0.5]).reshape(1, 1, 1, 2), torch.tensor([[[[0.0]]]])]
FAKE = [torch.tensor([-3.0, 0.5]).reshape(1, 1, 1, 2), torch.tensor([[[[-1.0]]]])]
EVEN = [torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 1)]


def test_hinge_by_hand() -> None:
    first = (0 + 0.5) / 2 + (0 + 1.5) / 2
    second = 1 + 0
    assert float(hinge_of_discriminator(REAL, FAKE, EVEN)) == pytest.approx((first + second) / 2)
    assert float(hinge_of_generator(FAKE, EVEN)) == pytest.approx((1.25 + 1) / 2)
    assert float(separation(REAL, FAKE, EVEN)) == pytest.approx((2.5 + 1) / 2)
    left = [torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), EVEN[1]]
    assert float(separation(REAL, FAKE, left)) == pytest.approx((5 + 1) / 2)


def test_blind_discriminator_costs_two() -> None:
    blind = [torch.zeros(1, 1, 3, 3)]
    assert float(hinge_of_discriminator(blind, blind, [torch.ones(1, 1, 3, 3)])) == 2


def test_lecam_by_hand() -> None:
    lecam = LeCam(decay=0.5)
    field = [torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)]  # the second answer is of padding
    lecam.update(
        [torch.tensor([4.0, 99.0]).reshape(1, 1, 1, 2)], [torch.tensor([-2.0, 99.0]).reshape(1, 1, 1, 2)], field
    )
    assert (lecam.real, lecam.fake) == (2.0, -1.0)
    real, fake, even = (torch.full((1, 1, 1, 1), value) for value in (3.0, 0.0, 1.0))
    assert float(lecam.penalty([real], [fake], [even])) == (3 + 1) ** 2 + (0 - 2) ** 2


def test_adaptive_weight_is_the_ratio_of_gradients() -> None:
    layer = torch.tensor([1.0, 2.0], requires_grad=True)
    ratio = adaptive_weight((6 * layer).sum(), (3 * layer).sum(), layer)
    assert float(ratio) == pytest.approx(2, rel=1e-4)
    assert not ratio.requires_grad
    assert float(adaptive_weight((6 * layer).sum(), (0 * layer).sum(), layer, most=100.0)) == 100


def test_image_change_by_hand() -> None:
    image = torch.zeros(2, 1, 8, 8)
    image[:, 0, 3, 3] = 1
    change = ImageChange(
        shift=torch.tensor([[1, -2], [0, 0]]), corner=torch.tensor([[6, 6], [2, 2]]), hole=2,
        brightness=torch.tensor([0.0, 0.5]),
    )  # fmt: skip
    changed = apply_image_change(image, change)
    assert torch.nonzero(changed[0, 0]).tolist() == [[4, 1]]  # down one, left two
    assert float(changed[1, 0, 3, 3]) == 0  # cut out
    assert float(changed[1].sum()) == pytest.approx(0.5 * 60)


def test_shift_brings_in_nothing() -> None:
    change = ImageChange(
        shift=torch.tensor([[2, 0]]), corner=torch.zeros(1, 2).long(), hole=0, brightness=torch.zeros(1)
    )
    changed = apply_image_change(torch.ones(1, 2, 4, 4), change)
    assert changed[0, :, :, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_drawn_changes_are_small_and_let_gradients_through() -> None:
    change = draw_image_change(200, 64, torch.Generator().manual_seed(0))
    assert int(change.shift.abs().max()) == 8
    assert float(change.brightness.abs().max()) <= 0.1
    assert int(change.corner.min()) >= 0
    assert int(change.corner.max()) + change.hole <= 64
    image = torch.zeros(200, 1, 64, 64, requires_grad=True)
    apply_image_change(image, change).sum().backward()
    assert image.grad is not None
    assert set(image.grad.unique().tolist()) == {0.0, 1.0}


def test_the_papers_discriminator() -> None:
    network = MultiScaleDiscriminator()
    assert [answer.shape[-1] for answer in network(torch.randn(2, 1, 64, 64))] == [31, 15, 7]
    for head in network.heads:
        kinds = [type(layer) for layer in head.children()]
        assert kinds == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU, nn.Conv2d]
    assert sum(p.numel() for p in network.parameters()) == 3 * (16 * 64 + 64 + 2 * 64 + 16 * 64 + 1)


def test_unet_answers_for_the_film_and_for_each_pixel() -> None:
    network = UNetDiscriminator(widths=(8, 16))
    whole, pixel = network(torch.randn(2, 1, 16, 16))
    assert (whole.shape, pixel.shape) == ((2, 1, 1, 1), (2, 1, 16, 16))
    for _ in range(30):
        network(torch.randn(2, 1, 16, 16))  # spectral norm finds the largest gain by iteration
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1, abs=0.05)


def test_high_pass_keeps_detail_only() -> None:
    flat = torch.full((1, 1, 8, 8), 3.0)
    assert float(high_pass(flat).abs().max()) == pytest.approx(0, abs=1e-6)
    fine = 0.1 * (1 - 2 * (torch.arange(8) % 2)).float().expand(1, 1, 8, 8)
    assert float(high_pass(flat + fine)[..., 2:-2, 2:-2].abs().mean()) == pytest.approx(0.1, rel=0.25)


@pytest.mark.parametrize("kind", [MultiScaleDiscriminator, UNetDiscriminator])
def test_a_discriminator_learns_to_tell(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(widths=(8, 16)) if kind is UNetDiscriminator else kind(width=8)
    adam = torch.optim.Adam(network.parameters(), lr=5e-3, betas=(0.5, 0.9))
    found = []
    for _ in range(30):
        real = 0.1 * torch.randn(4, 1, 32, 32)
        fake = 0.1 * (1 - 2 * (torch.arange(32) % 2)).float().expand_as(real)  # stripes of the same power
        answers = network(real), network(fake)
        weights = head_weights(torch.ones_like(real), answers[0])
        adam.zero_grad()
        hinge_of_discriminator(*answers, weights).backward()
        adam.step()
        found.append(float(separation(*answers, weights)))
    assert found[-1] > found[0] + 0.3


def test_heads_weigh_padding_out() -> None:
    mask = torch.ones(1, 1, 8, 8)
    mask[..., 4:] = 0
    weights = head_weights(mask, [torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)])
    assert weights[0][0, 0].tolist() == [[1, 0], [1, 0]]
    assert weights[1].item() == 0.5


def test_perceptual_loss_sees_crops_of_three_channels_without_padding() -> None:
    seen = []

    def distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        seen.append((one, other))
        return (one - other).abs().mean((1, 2, 3))

    image, made = torch.zeros(3, 1, 8, 8), torch.ones(3, 1, 8, 8)
    mask = torch.zeros(3, 1, 8, 8)
    mask[:2] = 1
    generator = torch.Generator().manual_seed(0)
    assert float(perceptual_on_crops(distance, made, image, mask, crop=4, generator=generator)) == pytest.approx(2 / 3)
    assert seen[0][0].shape == (3, 3, 4, 4)


def test_perceptual_loss_tells_a_blur_and_teaches_the_image() -> None:
    distance = load_perceptual("cpu")
    assert distance is not None
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    blurred = torch.nn.functional.avg_pool2d(image, 3, stride=1, padding=1).requires_grad_()
    assert float(distance(image, image)) == pytest.approx(0, abs=1e-6)
    found = distance(image, blurred).sum()
    found.backward()
    assert found.item() > 0.01
    assert blurred.grad is not None
    assert float(blurred.grad.abs().sum()) > 0


def test_perceptual_loss_is_absent_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    st_lpips.cache_clear()  # another test may have loaded it
    for name in ("stlpips_pytorch", "stlpips_pytorch.stlpips"):
        monkeypatch.setitem(sys.modules, name, None)
    assert load_perceptual("cpu") is None


def test_consistency_by_hand() -> None:
    box = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).reshape(1, 1, 2, 2)
    real = [torch.zeros(1, 1, 1, 1), torch.full((1, 1, 2, 2), 3.0)]
    fake = [torch.zeros(1, 1, 1, 1), torch.full((1, 1, 2, 2), -1.0)]
    as_wanted = torch.tensor([[3.0, 3.0], [-1.0, -1.0]]).reshape(1, 1, 2, 2)
    whole = torch.full((1, 1, 1, 1), 0.5)
    hinge = 0.75 * 0.5 + 0.25 * 1.5  # three quarters of the attention lie in the box
    everywhere = torch.ones(1, 1, 2, 2)
    assert float(consistency([whole, as_wanted], real, fake, box, everywhere)) == pytest.approx(hinge)
    assert float(consistency([whole, as_wanted + 2], real, fake, box, everywhere)) == pytest.approx(hinge + 4)
    padded = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).reshape(1, 1, 2, 2)
    wrong_in_padding = as_wanted + torch.tensor([[0.0, 9.0], [0.0, 0.0]])
    expected = 0.6 * 0.5 + 0.4 * 1.5  # 3 of 5
    assert float(consistency([whole, wrong_in_padding], real, fake, box, padded)) == pytest.approx(expected)


def test_boxes_lie_within_and_differ() -> None:
    boxes = draw_boxes(64, 16, torch.Generator().manual_seed(1))
    rows, columns = boxes.amax(3).sum(2), boxes.amax(2).sum(2)
    assert torch.equal(boxes.sum((2, 3)), rows * columns)  # rectangles
    assert rows.min() >= 4
    assert columns.max() <= 12
    assert len({tuple(box.flatten().tolist()) for box in boxes}) > 50
    assert boxes.mean(0)[0].min() > 0  # every place is in some box


def test_consistency_makes_pixel_answers_local() -> None:
    """Trained with it, the answers to a mixed image are nearer to those to its parts, and real is still told."""
    gaps = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        network = UNetDiscriminator(widths=(8, 16), detail_gain=0.0)
        optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(40):
            real, fake = torch.randn(8, 1, 16, 16, generator=generator), torch.zeros(8, 1, 16, 16)
            box = draw_boxes(8, 16, generator)
            even = torch.ones_like(box)
            answers = network(real), network(fake)
            mixed = network(torch.where(box > 0, real, fake))
            told = hinge_of_discriminator(*answers, head_weights(even, answers[0]))
            optimiser.zero_grad()
            (told + weight * consistency(mixed, *answers, box, even)).backward()
            optimiser.step()
        wanted = torch.where(box > 0, answers[0][1], answers[1][1]).detach()
        gaps[weight] = float((mixed[1].detach() - wanted).square().mean() / wanted.var())
        assert float(told.detach()) < 1
    assert gaps[1.0] < 0.8 * gaps[0.0]
