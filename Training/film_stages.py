"""What each stage of the film cascade learns: a film at 64 px from noise, then detail x4, and x4 again, on crops.

A stage turns a step number into a batch (all randomness from one generator of that step, so a resumed run goes on as
if never cut), gives the same measured loss for training and held-out films, and draws a sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.background.cascade import REDUCTION, upsample
from HiResMedSynthLib.background.flow import FlowBatch, guided, sample
from Training.augment import Pixels, apply_film_change, apply_gamma, draw_film_change, reduce
from Training.film_data import FilmSet

LARGEST = 8.0  # units of residual; beyond it only the edges of burnt-in letters, which would rule the loss
MARGIN = 4  # coarse pixels around a crop, so that upsampling sees true neighbours


@dataclass(frozen=True, kw_only=True)
class Example:
    """One training example: the film or crop, its field, its coarse version with a margin (detail only), its class."""

    film: Pixels
    mask: Pixels
    coarse: Pixels | None
    label: int


class CoarseFilm:
    """Stage "film": whole films at a sixteenth of the canvas, from noise, told the field and the sex."""

    def __init__(self, films: FilmSet, *, batch: int, label_drop: float, unit: float | None = None) -> None:
        self.films, self.batch, self.label_drop = films, batch, label_drop
        self.size = films.pixels.shape[-1] // REDUCTION**2
        self.quarter = np.stack([reduce(film, REDUCTION) for film in films.pixels])
        self.masks = np.stack([reduce(mask.astype(np.float32), REDUCTION) > 0.5 for mask in films.masks()])
        if unit is None:
            unit = float(np.stack([self._plain(index).film for index in films.side(held_out=False)]).std())
        self.unit = unit

    def constants(self) -> dict[str, float]:
        """What a sampler must know beside the weights."""
        return {"unit": self.unit, "size": self.size, "spacing_mm": self.films.spacing_mm * REDUCTION**2}

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch of changed training films."""
        chosen = rng.choice(self.films.side(held_out=False), self.batch)
        return self._batch([self._changed(int(index), rng) for index in chosen], rng)

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """The first films of one side, unchanged: the same ones each time."""
        chosen = self.films.side(held_out=held_out)[:24]
        return [self._batch([self._plain(index) for index in chosen], None)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Two rows of real films (held out) over two rows of samples, eight across."""
        generator = torch.Generator().manual_seed(seed)
        real = self.measured_batches(held_out=True)[0]
        noise = torch.randn(16, 1, self.size, self.size, generator=generator)
        mask = torch.ones_like(noise)
        label = torch.arange(16) % 2 + 1
        made = sample(guided(network, condition=mask, label=label), noise, steps=20, mask=mask, jump=0.9)
        shown = [torch.cat([real.data[:8], real.data[8:16]]), made]
        return _tiles(torch.cat(shown) * self.unit, across=8)

    def _plain(self, index: int) -> Example:
        film, mask = self.quarter[index], self.masks[index].astype(np.float32)
        return self._example(film, mask, index)

    def _changed(self, index: int, rng: np.random.Generator) -> Example:
        film, mask = self.quarter[index], self.masks[index]
        film, inside = apply_film_change(film, mask, draw_film_change(rng), corner=(0, 0), size=film.shape[0])
        return self._example(film, inside, index)

    def _example(self, film: Pixels, mask: Pixels, index: int) -> Example:
        small_mask = (reduce(mask, REDUCTION) > 0.5).astype(np.float32)
        return Example(film=reduce(film, REDUCTION), mask=small_mask, coarse=None, label=self.films.films[index].label)

    def _batch(self, examples: list[Example], rng: np.random.Generator | None) -> FlowBatch:
        label = np.array([example.label for example in examples])
        if rng is not None:
            label = np.where(rng.random(len(label)) < self.label_drop, 0, label)
        mask = _stack([example.mask for example in examples])
        data = _stack([example.film for example in examples]) / self.unit
        return FlowBatch(data=data, mask=mask, condition=mask, label=torch.from_numpy(label))


class Detail:
    """Stages "detail-256" and "detail-1024": what a film has beyond its own version at a quarter, on crops.

    The condition is blurred and noised at random (the network is told how much it was noised), since what the stage
    before puts out is never quite a reduced real film.
    """

    def __init__(self, films: FilmSet, *, batch: int, crop: int, finest: bool, unit: float | None = None) -> None:
        self.films, self.batch, self.crop, self.finest = films, batch, crop, finest
        self.canvas = films.pixels.shape[-1] // (1 if finest else REDUCTION)
        self.masks = films.masks()
        self.unit = 1.0
        if unit is None:  # the median crop's SD: markers and collimator edges would make it too large for lung
            rng = np.random.default_rng(0)
            sides = films.side(held_out=False)
            clean = [self._example(sides[i % len(sides)], rng, change=False) for i in range(48)]
            unit = float(self._batch(clean, None).data.std(dim=(1, 2, 3)).median())
        self.unit = unit

    def constants(self) -> dict[str, float]:
        """What a sampler must know beside the weights."""
        return {"unit": self.unit, "spacing_mm": self.films.spacing_mm * (1 if self.finest else REDUCTION)}

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch of changed crops of training films."""
        chosen = rng.choice(self.films.side(held_out=False), self.batch)
        return self._batch([self._example(int(index), rng, change=True) for index in chosen], rng)

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """One crop of each of the first 24 films of one side, unchanged, condition clean: the same each time."""
        rng = np.random.default_rng(1)
        sides = self.films.side(held_out=held_out)[:24]
        return [self._batch([self._example(index, rng, change=False) for index in sides], None)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Rows: held-out crops, their coarse version upsampled, the network's; six across."""
        generator = torch.Generator().manual_seed(seed)
        real = self.measured_batches(held_out=True)[0]
        condition, data = real.condition[:6], real.data[:6]
        noise = torch.randn(data.shape, generator=generator)
        made = sample(guided(network, condition=condition), noise, steps=8, mask=real.mask[:6])
        upsampled = condition[:, :1]
        shown = [upsampled + data * self.unit, upsampled, upsampled + made * self.unit]
        return _tiles(torch.cat(shown), across=len(data))

    def _example(self, index: int, rng: np.random.Generator, *, change: bool) -> Example:
        """A crop with `MARGIN` coarse pixels around it, at least half of it inside the field."""
        film, mask = self.films.pixels[index], self.masks[index]
        step = 1 if self.finest else REDUCTION
        size = (self.crop + 2 * MARGIN * REDUCTION) * step
        room = film.shape[0] - size
        if room < 0:
            raise ValueError(f"a crop of {size} px doesn't fit a canvas of {film.shape[0]}")
        for _ in range(20):
            corner = (int(rng.integers(0, room + 1)), int(rng.integers(0, room + 1)))
            inside = mask[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
            if inside.mean() > 0.5:
                break
        part = film[corner[0] : corner[0] + size, corner[1] : corner[1] + size]
        weight = inside.astype(np.float32)
        if change:
            drawn = draw_film_change(rng)
            if self.finest:  # a warp would blur the very detail to be learned
                part = apply_gamma(part, drawn.gamma)
            else:
                part, weight = apply_film_change(film, mask, drawn, corner=corner, size=size)
        if step > 1:
            part, weight = reduce(part, step), reduce(weight, step)
        edge = slice(MARGIN * REDUCTION, -MARGIN * REDUCTION)
        return Example(
            film=part[edge, edge],
            mask=(weight[edge, edge] > 0.5).astype(np.float32),
            coarse=reduce(part, REDUCTION),
            label=0,
        )

    def _batch(self, examples: list[Example], rng: np.random.Generator | None) -> FlowBatch:
        coarse = _stack([example.coarse for example in examples if example.coarse is not None])
        level = np.zeros(len(examples), dtype=np.float32)
        if rng is not None:
            level = rng.uniform(0, 1, len(examples)).astype(np.float32)
            blur = rng.uniform(0, 0.6, len(examples)) * (rng.random(len(examples)) < 0.5)
            noise = rng.standard_normal(coarse.shape, dtype=np.float32)
            coarse = blur_and_noise(
                coarse,
                blur=torch.from_numpy(blur.astype(np.float32)),
                noise=torch.from_numpy(noise),
                sd=level * self.unit,
            )
        edge = slice(MARGIN * REDUCTION, -MARGIN * REDUCTION)
        upsampled = upsample(coarse)[:, :, edge, edge]
        mask = _stack([example.mask for example in examples])
        data = (_stack([example.film for example in examples]) - upsampled) / self.unit
        condition = torch.cat([upsampled, mask], dim=1)
        data = data.clamp(-LARGEST, LARGEST)
        return FlowBatch(data=data, mask=mask, condition=condition, level=torch.from_numpy(level))


def blur_and_noise(coarse: Tensor, *, blur: Tensor, noise: Tensor, sd: NDArray[np.float32]) -> Tensor:
    """The coarse image mixed with its 3x3 mean by `blur` (0..1), plus noise of the given SD; [B, 1, H, W]."""
    soft = nn.functional.avg_pool2d(nn.functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = blur[:, None, None, None]
    return (1 - share) * coarse + share * soft + noise * torch.from_numpy(sd)[:, None, None, None]


def _stack(images: list[Pixels]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.stack(images)[:, None], dtype=np.float32))


def _tiles(images: Tensor, *, across: int) -> NDArray[np.uint8]:
    """Images in -1..1 as one grey sheet, `across` in a row."""
    grey = ((images[:, 0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
    rows = [np.concatenate(list(grey[start : start + across]), axis=1) for start in range(0, len(grey), across)]
    return np.concatenate([row for row in rows if row.shape == rows[0].shape], axis=0)
