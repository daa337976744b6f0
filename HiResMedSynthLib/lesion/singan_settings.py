"""Presets of the single-image GAN, and the sizes of its scales.

`paper` is the official two-dimensional schedule (paper, Eq. 13) but for the number of channels. `better` starts from a
randomly deformed coarse image of the lesion, has fewer scales, one step of each network an iteration, and a critic
without gradient penalty.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from HiResMedSynthLib.errors import SettingsError

OFFICIAL_FACTOR, OFFICIAL_SMALLEST, OFFICIAL_LARGEST = 0.75, 25, 250
PRESET_NAMES = ("paper", "better", "tiny")


@dataclass(frozen=True, kw_only=True)
class SinGanSettings:
    """Everything that fixes the networks and their training; stored with a model as JSON.

    Attributes:
        name: of the preset.
        scales, smallest: log-spaced scales and the side of the first; 0 scales: the official rule.
        layers, channels: convolutions of 3 voxels a network, and their width at the first scale.
        double_every, most_channels: the width doubles after so many scales (0: never), up to the most.
        batch_norm: after every convolution but the last.
        pad_outside: input padded with zeros by `layers`, convolutions without padding; else each pads itself.
        tanh: bounds what a generator adds; values are then scaled to -1..1, else to 0..1.
        start: of the first scale: pure noise, or a randomly deformed coarse image of the lesion.
        start_side: side of that coarse image.
        start_strength, real_strength: of the deformations of starts and of the critic's real images.
        reals: real images: the lesion, and mildly deformed ones.
        iterations: at each scale (the last number holds for further ones).
        d_steps, g_steps: updates of critic and generator an iteration.
        batch: generated (and real) images an update.
        adversary: WGAN with gradient penalty, or hinge with spectral norm.
        gradient_penalty, reconstruction, low_pass, adversarial: weights of the losses.
        high_pass: the critic also sees the fine texture inside the matte.
        g_rate, d_rate: of Adam (.5, .999); a tenth of it after `decay_at` of the iterations.
        average: decay of the moving average of the generator's weights that is kept; 0: the last weights.
        noise: amplitude of the noise above the first scale (`noise_by_error`: times the RMSE that scale starts with).
        cache: images of the scales below that are drawn once a scale; 0: drawn anew in every critic step.
        flat: a scale ends early when its reconstruction improves by less than this share over `flat_window` reports;
            0: never.
        report_every: iterations.
    """

    name: str
    scales: int = 0
    smallest: int = OFFICIAL_SMALLEST
    layers: int = 5
    channels: int = 32
    double_every: int = 4
    most_channels: int = 128
    batch_norm: bool = True
    pad_outside: bool = True
    tanh: bool = True
    start: Literal["noise", "deformed"] = "noise"
    start_side: int = 0
    start_strength: float = 0.0
    real_strength: float = 0.0
    reals: int = 1
    iterations: tuple[int, ...] = (2000,)
    d_steps: int = 3
    g_steps: int = 3
    batch: int = 1
    adversary: Literal["wgan-gp", "hinge"] = "wgan-gp"
    gradient_penalty: float = 0.1
    reconstruction: float = 10.0
    low_pass: float = 0.0
    adversarial: float = 1.0
    high_pass: bool = False
    g_rate: float = 5e-4
    d_rate: float = 5e-4
    decay_at: float = 0.8
    average: float = 0.0
    noise: float = 0.1
    noise_by_error: bool = True
    cache: int = 0
    flat: float = 0.0
    flat_window: int = 6
    report_every: int = 10

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {**dataclasses.asdict(self), "iterations": list(self.iterations)}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> SinGanSettings:
        """What `to_json` wrote."""
        return cls(**{**fields, "iterations": tuple(fields["iterations"])})

    def width(self, scale: int) -> int:
        """Channels at a scale."""
        doubled = 2 ** (scale // self.double_every) if self.double_every else 1
        return min(self.channels * doubled, self.most_channels)

    def iterations_at(self, scale: int) -> int:
        """Iterations of a scale."""
        return self.iterations[min(scale, len(self.iterations) - 1)]

    def sizes(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Shape of the image at every scale, coarsest first, `shape` last."""
        if self.scales == 0:
            return official_sizes(shape)
        shortest = min(shape)
        count = self.scales if self.smallest < shortest else 1
        ratio = (shortest / self.smallest) ** (1 / (count - 1)) if count > 1 else 1.0
        return [tuple(round(side / ratio**k) for side in shape) for k in reversed(range(count))]


PAPER = SinGanSettings(name="paper")
BETTER = SinGanSettings(
    name="better",
    scales=3,
    smallest=17,
    layers=4,
    channels=16,
    double_every=0,
    batch_norm=False,
    pad_outside=False,
    tanh=False,
    start="deformed",
    start_side=17,
    start_strength=0.7,
    real_strength=0.35,
    reals=48,
    iterations=(120, 220, 140),
    d_steps=1,
    g_steps=1,
    batch=2,
    adversary="hinge",
    low_pass=10.0,
    adversarial=0.15,
    high_pass=True,
    g_rate=1e-3,
    d_rate=1e-3,
    decay_at=0.7,
    average=0.97,
    noise=0.08,
    noise_by_error=False,
    cache=48,
)


def preset(name: str, dims: int) -> SinGanSettings:
    """The settings of a preset for two or three spatial dimensions.

    Raises:
        SettingsError: there is no such preset.
    """
    if name == "paper":
        return PAPER
    if name == "better":
        if dims == 3:
            return BETTER
        return dataclasses.replace(
            BETTER, scales=4, smallest=25, start_side=25, channels=32, iterations=(200, 300, 250, 200)
        )
    if name == "tiny":
        return dataclasses.replace(
            BETTER, name="tiny", scales=2, smallest=10, start_side=10, channels=8, iterations=(20,), reals=4, cache=4
        )
    raise SettingsError(f"there is no preset '{name}'", remedy=f"Choose one of {', '.join(PRESET_NAMES)}.")


def official_sizes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The official pyramid: factor about .75, chosen anew so that the coarsest shortest side is 25; 250 at most.

    64 pixels: 25, 30, 36, 44, 53, 64.
    """
    shrink = min(OFFICIAL_LARGEST / max(shape), 1.0)
    largest = tuple(round(side * shrink) for side in shape)
    shortest = min(largest)
    if shortest <= OFFICIAL_SMALLEST:
        return [largest]
    downs = math.ceil(math.log(OFFICIAL_SMALLEST / min(shape)) / math.log(OFFICIAL_FACTOR)) + 1
    downs -= math.ceil(math.log(min(OFFICIAL_LARGEST, max(shape)) / max(shape)) / math.log(OFFICIAL_FACTOR))
    factor = (OFFICIAL_SMALLEST / shortest) ** (1 / downs)
    return [tuple(round(side * factor**k) for side in largest) for k in reversed(range(downs + 1))]
