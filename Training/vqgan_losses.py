"""The losses of the VQGAN: Eq. 1 term by term, and what keeps an adversary honest with few films.

Padding is in no loss: errors are weighted by the field's mask, and an adversary sees 0 outside it on both sides.
Shapes: B batch, C channels, S side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from HiResMedSynthLib.background.quantiser import ALPHA, GAMMA, weighted_mean
from HiResMedSynthLib.background.vqgan import Reconstruction
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.st_lpips import st_lpips

Perceptual = Callable[[Tensor, Tensor], Tensor]
"""(image, other), each [B, 3, H, W] in -1..1 -> distance of each pair."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Eq. 1's terms as scalars, already with their weights; a term not in use is 0."""

    reconstruction: Tensor
    commitment: Tensor
    codebook: Tensor
    perceptual: Tensor
    adversarial: Tensor

    def total(self) -> Tensor:
        """Eq. 1."""
        return self.reconstruction + self.commitment + self.codebook + self.perceptual + self.adversarial


def equation_1(
    result: Reconstruction,
    image: Tensor,
    mask: Tensor,
    *,
    alpha: float = ALPHA,
    gamma: float = GAMMA,
    perceptual: Tensor | None = None,
    adversarial: Tensor | None = None,
) -> Terms:
    """||I^ - I||^2 + alpha ||sg(M^t) - M|| + gamma ||sg(M) - M^t|| + L_p + L_GAN, means over the field.

    `image` is [B, C or 1, S, S], `mask` [B, 1, S, S]; alpha weights the commitment, as the paper prints.
    """
    none = result.image.new_zeros(())
    return Terms(
        reconstruction=weighted_mean((result.image - image).square(), mask),
        commitment=alpha * result.commitment,
        codebook=gamma * result.codebook,
        perceptual=none if perceptual is None else perceptual,
        adversarial=none if adversarial is None else adversarial,
    )


def load_perceptual(device: str) -> Perceptual | None:
    """ST-LPIPS on VGG16 (the paper's own reference for LPIPS), frozen; None where the package is not installed."""
    try:
        distance: Perceptual = deepcopy(st_lpips()).to(device)  # the loaded one stays where others look for it
    except HiResMedSynthError:
        return None
    return distance


def perceptual_on_crops(
    distance: Perceptual, made: Tensor, image: Tensor, mask: Tensor, *, crop: int, generator: torch.Generator
) -> Tensor:
    """Mean distance over one random crop of each image, [B, C, S, S]; both are 0 outside the field: a scalar."""
    made, image = made * mask, image * mask
    pairs = []
    for one, other in zip(made, image, strict=True):
        size = min(crop, one.shape[-1])
        top, left = (int(torch.randint(one.shape[-1] - size + 1, (1,), generator=generator)) for _ in range(2))
        pairs.append([x[:, top : top + size, left : left + size].expand(3, -1, -1) for x in (one, other)])
    return distance(torch.stack([pair[0] for pair in pairs]), torch.stack([pair[1] for pair in pairs])).mean()


def hinge_of_discriminator(real: Sequence[Tensor], fake: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """max(0, 1 - D(real)) + max(0, 1 + D(fake)), mean over heads: a scalar, 2 where it can't tell.

    Each head's answers are [B, 1, h, w]; `weights` (same shapes) leave padding out.
    """
    return _mean_over_heads(
        [
            weighted_mean((1 - r).relu(), w) + weighted_mean((1 + f).relu(), w)
            for r, f, w in zip(real, fake, weights, strict=True)
        ]
    )


def hinge_of_generator(fake: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """-D(fake), mean over heads: a scalar."""
    return _mean_over_heads([-weighted_mean(f, w) for f, w in zip(fake, weights, strict=True)])


def separation(real: Sequence[Tensor], fake: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """D(real) - D(fake), mean over heads: near 0 the discriminator can't tell, and teaches nothing."""
    parts = zip(real, fake, weights, strict=True)
    return _mean_over_heads([weighted_mean(r.detach() - f.detach(), w) for r, f, w in parts])


def head_weights(mask: Tensor, answers: Sequence[Tensor]) -> list[Tensor]:
    """The mask [B, 1, S, S] at each head's size: the share of field under each answer."""
    return [nn.functional.adaptive_avg_pool2d(mask.float(), (answer.shape[-2], answer.shape[-1])) for answer in answers]


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: Tensor, *, most: float = 1e4) -> Tensor:
    """Length of the reconstruction's gradient over the adversarial loss's, at the decoder's last weights: a scalar."""
    wanted, pushed = (
        torch.autograd.grad(loss, last_layer, retain_graph=True)[0].norm() for loss in (reconstruction, adversarial)
    )
    weight: Tensor = (wanted / (pushed + 1e-4)).clamp(0, most).detach()
    return weight


class LeCam:
    """Regulariser of Tseng et al. (2021): real answers stay near the running mean of fake ones, and the reverse."""

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self.real = self.fake = 0.0

    def update(self, real: Sequence[Tensor], fake: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
        """Moves the running means by this batch's, padding left out."""
        means = [
            float(_mean_over_heads([weighted_mean(a.detach().float(), w) for a, w in zip(side, weights, strict=True)]))
            for side in (real, fake)
        ]
        self.real, self.fake = (
            self.decay * old + (1 - self.decay) * new for old, new in zip((self.real, self.fake), means, strict=True)
        )

    def penalty(self, real: Sequence[Tensor], fake: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
        """|D(real) - mean of fake|^2 + |D(fake) - mean of real|^2, mean over heads: a scalar."""
        return _mean_over_heads(
            [
                weighted_mean((r - self.fake).square() + (f - self.real).square(), w)
                for r, f, w in zip(real, fake, weights, strict=True)
            ]
        )


def draw_boxes(count: int, size: int, generator: torch.Generator) -> Tensor:
    """[B, 1, S, S] 0 or 1: a box in each image, at least a quarter and at most three quarters of each side."""
    line = torch.arange(size)
    length = torch.randint(size // 4, 3 * size // 4 + 1, (count, 2), generator=generator)
    corner = (torch.rand(count, 2, generator=generator) * (size - length + 1)).long()
    return _both(*((line >= corner[:, a, None]) & (line < (corner + length)[:, a, None]) for a in (0, 1))).float()


def consistency(
    mixed: Sequence[Tensor], real: Sequence[Tensor], fake: Sequence[Tensor], box: Tensor, mask: Tensor
) -> Tensor:
    """AttnMix (HAGAN): what the U-Net adversary must answer to a fake with a box of a real image in it: a scalar.

    For each pixel the answer that it gave to the image that the pixel is from (mean square); for the whole image
    "real" by the box's share of its attention, the size of those answers (hinge). Answers are [whole, pixels];
    `box` and `mask` are [B, 1, S, S].
    """
    wanted = torch.where(box > 0, real[1], fake[1])  # with its gradient: a target that runs ahead diverges
    attention = wanted.detach().abs() * mask
    share = (attention * box).sum((1, 2, 3), keepdim=True) / attention.sum((1, 2, 3), keepdim=True).clamp(min=1e-8)
    whole = share * (1 - mixed[0]).relu() + (1 - share) * (1 + mixed[0]).relu()
    return weighted_mean((mixed[1] - wanted).square(), mask) + whole.mean()


@dataclass(frozen=True, kw_only=True)
class ImageChange:
    """One change of DiffAugment (Zhao et al., 2020) for each image of a batch, drawn on the CPU.

    Attributes:
        shift: [B, 2], pixels down and right.
        corner: [B, 2], top left of the square that is cut out.
        hole: side of that square in pixels.
        brightness: [B], added to the grey value.
    """

    shift: Tensor
    corner: Tensor
    hole: int
    brightness: Tensor


def draw_image_change(count: int, size: int, generator: torch.Generator) -> ImageChange:
    """Shifts up to 1/8, a hole of 1/4, brightness within 0.1: small, since a film's grey means something."""
    room, hole = size // 8, size // 4
    return ImageChange(
        shift=torch.randint(-room, room + 1, (count, 2), generator=generator),
        corner=torch.randint(0, size - hole + 1, (count, 2), generator=generator),
        hole=hole,
        brightness=(torch.rand(count, generator=generator) * 2 - 1) * 0.1,
    )


def apply_image_change(images: Tensor, change: ImageChange) -> Tensor:
    """[B, C, S, S] changed, differentiably; 0 in the hole and where a shift brings nothing in."""
    side = images.shape[-1]
    line = torch.arange(side, device=images.device)
    bright = images + change.brightness.to(images.device)[:, None, None, None]
    shift, corner = change.shift.to(images.device), change.corner.to(images.device)
    rows, columns = (line[None] - shift[:, axis, None] for axis in (0, 1))  # [B, S]: where each comes from
    number = torch.arange(len(images), device=images.device)[:, None, None]
    source = bright[number, :, rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None, :]]
    moved = source.permute(0, 3, 1, 2)  # indexing put the channels last
    from_inside = _both((rows >= 0) & (rows < side), (columns >= 0) & (columns < side))
    in_hole = [(line[None] >= corner[:, a, None]) & (line[None] < corner[:, a, None] + change.hole) for a in (0, 1)]
    return moved * (from_inside & ~_both(*in_hole))


def _both(rows: Tensor, columns: Tensor) -> Tensor:
    """[B, 1, S, S] from conditions on rows and on columns, each [B, S]."""
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _mean_over_heads(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()
