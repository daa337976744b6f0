"""The adversaries: the paper's at three scales, and a U-Net that answers for the whole film and for each pixel.

Each is given images [B, C, S, S] and answers with a list of maps [B, 1, h, w], one a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class MultiScaleDiscriminator(nn.Module):
    """Two convolutions, a norm, an activation, at full, half and quarter size (local, medium, global)."""

    def __init__(self, channels: int = 1, *, width: int = 64, scales: int = 3) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 4, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 1, 4, padding=1),
            )
            for _ in range(scales)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Answers of each scale, finest first."""
        answers = []
        for head in self.heads:
            answers.append(head(image))
            image = nn.functional.avg_pool2d(image, 2)
        return answers


class UNetDiscriminator(nn.Module):
    """A global answer at the bottom, [B, 1, 1, 1], and one for each pixel, [B, 1, S, S]; spectral norm throughout.

    Args:
        channels: of the image.
        widths: channels after each halving; S must be a multiple of 2 ** len(widths).
        detail_gain: the image's high-pass band times this is given beside it; 0 for none. A film's detail is some
            hundredths of its range: at that size an adversary overlooks it.
    """

    def __init__(
        self, channels: int = 1, *, widths: tuple[int, ...] = (32, 64, 128, 256), detail_gain: float = 10.0
    ) -> None:
        super().__init__()
        self.detail_gain = detail_gain
        inputs = channels * (2 if detail_gain else 1)
        self.stem = spectral_norm(nn.Conv2d(inputs, widths[0], 3, padding=1))
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        before = widths[0]
        for width in widths:
            self.down.append(spectral_norm(nn.Conv2d(before, width, 4, stride=2, padding=1)))
            self.up.append(spectral_norm(nn.Conv2d(width + before, before, 3, padding=1)))
            before = width
        self.whole = spectral_norm(nn.Linear(before, 1))
        self.pixel = spectral_norm(nn.Conv2d(widths[0], 1, 1))

    def forward(self, image: Tensor) -> list[Tensor]:
        """[global answer, answer for each pixel]."""
        x = image
        if self.detail_gain:
            x = torch.cat([image, self.detail_gain * high_pass(image)], dim=1)
        x = _active(self.stem(x))
        kept = []
        for layer in self.down:
            kept.append(x)
            x = _active(layer(x))
        whole = self.whole(x.mean((2, 3)))[:, :, None, None]
        for layer, skip in zip(reversed(self.up), reversed(kept), strict=True):
            x = _active(layer(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), skip], dim=1)))
        return [whole, self.pixel(x)]


def high_pass(image: Tensor) -> Tensor:
    """[B, C, S, S]: the image less its mean over 5 x 5 pixels, edges replicated."""
    padded = nn.functional.pad(image, (2, 2, 2, 2), mode="replicate")
    return image - nn.functional.avg_pool2d(padded, 5, stride=1)


def _active(x: Tensor) -> Tensor:
    return nn.functional.leaky_relu(x, 0.2)
