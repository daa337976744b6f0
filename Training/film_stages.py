"""What each stage of a cascade learns: the coarse film from noise and codes, then detail x4, and x4 again, on crops.

A stage turns a step number into a batch on its device (all randomness from one generator of that step, so a resumed run
goes on as if never cut), gives the same measured loss for training and held-out films, and draws a sheet.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.background.cascade import REDUCTION, upsample
from HiResMedSynthLib.background.film_network import PICTURE
from HiResMedSynthLib.flow import FlowBatch, guided, sample, sampling_times
from Training.augment import FilmChange, Pixels, apply_film_change, apply_gamma, draw_film_change, reduce
from Training.film_data import FilmSet

LARGEST = 8.0  # units of residual; beyond it only the edges of burnt-in letters, which would rule the loss
MARGIN = 4  # coarse pixels around a crop, so that upsampling sees true neighbours
NONE_KNOWN, ALL_KNOWN = 0.4, 0.2  # shares of films told no code, and all; the others are told a part
MEASURED = 24  # films of each side whose loss is measured


class CoarseFilm:
    """Stage "film": whole films from noise, told the field, the sex, and a random part of their own codes.

    Args:
        films: the set.
        batch: films a step.
        label_drop: share of films whose sex is withheld.
        reduction: canvas side over film side (16 makes 64 px of 1024).
        grid: side of the code grid.
        unit: standard deviation the values are scaled by; None: measured.
        device: where batches lie.
    """

    def __init__(
        self,
        films: FilmSet,
        *,
        batch: int,
        label_drop: float,
        grid: int,
        reduction: int = REDUCTION**2,
        unit: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.films, self.batch, self.label_drop, self.grid, self.device = films, batch, label_drop, grid, device
        canvas = films.pixels.shape[-1]
        self.reduction, self.size = reduction, canvas // reduction
        self.step = max(1, reduction // (2 * PICTURE))  # warps read films of twice the picture's side where there are
        self.pixels = held_pixels(films, self.step).to(device)
        self.fields = torch.tensor([film.field for film in films.films]).float() / self.step
        self.labels = torch.tensor([film.label for film in films.films])
        self.sides = [[i for i in films.side(held_out=side) if films.films[i].whole] for side in (False, True)]
        self.unit = 1.0
        if unit is None:
            unit = float(self._batch(self.sides[0], None).data.std())
        self.unit = unit

    def constants(self) -> dict[str, float]:
        """What a sampler must know beside the weights."""
        spacing = self.films.spacing_mm * self.reduction
        return {"unit": self.unit, "size": self.size, "grid": self.grid, "spacing_mm": spacing}

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch of changed training films."""
        return self._batch(rng.choice(self.sides[0], self.batch).tolist(), rng)

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """The first films of one side, unchanged, told no code: the same ones each time."""
        return [self._batch(self.sides[int(held_out)][:MEASURED], None)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Eight across: held-out films, the same rebuilt from their codes, and two rows of new ones."""
        generator = torch.Generator().manual_seed(seed)
        real = self._batch(self.sides[1][:8], None, known=1.0)
        new = torch.ones(16, 1, self.size, self.size, device=self.device)
        none = torch.zeros(16, 1, self.grid, self.grid, device=self.device)
        label = (torch.arange(16) % 2 + 1).to(self.device)
        rows = [real.data]
        for count, told in (
            (len(real.data), dict(real.inputs)),
            (16, {"condition": new, "known": none, "label": label}),
        ):
            noise = torch.randn(count, 1, self.size, self.size, generator=generator).to(self.device)
            velocity = guided(network, **told)
            rows.append(sample(velocity, noise, times=sampling_times(20, jump=0.9), mask=told["condition"]))
        return _tiles(torch.cat(rows) * self.unit, across=8)

    def _batch(self, chosen: list[int], rng: np.random.Generator | None, *, known: float = 0.0) -> FlowBatch:
        pixels, fields = self.pixels[chosen], self.fields[chosen]
        corners = torch.zeros(len(chosen), 2, dtype=torch.long)
        change = no_change(len(chosen)) if rng is None else draw_film_change(rng, len(chosen))
        films, masks = apply_film_change(pixels, fields, change, corners=corners, size=pixels.shape[-1])
        to_picture = self.reduction // (PICTURE * self.step)
        picture, field = reduce(films, to_picture), reduce(masks, to_picture)
        mask = (reduce(field, PICTURE) > 0.5).float()
        label = self.labels[chosen].to(self.device)
        told = torch.full((len(chosen), 1, self.grid, self.grid), known, device=self.device)
        if rng is not None:
            label = label * torch.from_numpy(rng.random(len(chosen)) >= self.label_drop).to(self.device)
            told = torch.from_numpy(draw_known(rng, len(chosen), self.grid)).to(self.device)
        return FlowBatch(
            data=reduce(picture, PICTURE) / self.unit,
            mask=mask,
            inputs={
                "condition": mask,
                "label": label,
                "known": told,
                "picture": torch.cat([picture, field], dim=1),
            },
        )


def draw_known(rng: np.random.Generator, count: int, grid: int) -> Pixels:
    """[count, 1, grid, grid] 0 or 1: which codes are told: none, all, scattered ones, or whole regions."""
    share = rng.random(count)
    noise = rng.random((count, grid, grid)).astype(np.float32)
    coarse = rng.random((count, 4, 4)).astype(np.float32)  # regions: a smooth field above a threshold
    spread = nn.functional.interpolate(torch.from_numpy(coarse)[:, None], size=grid, mode="bicubic")[:, 0].numpy()
    field = np.where(rng.random(count)[:, None, None] < 0.5, noise, spread)
    order = field.reshape(count, -1).argsort(1).argsort(1).reshape(field.shape) / grid**2  # ranks, 0..1
    known = order < share[:, None, None]
    kind = rng.random(count)
    known[kind < NONE_KNOWN] = False
    known[kind > 1 - ALL_KNOWN] = True
    return known[:, None].astype(np.float32)


class Detail:
    """Stages "detail-...": what a film has beyond its own version at a quarter, on crops.

    The condition is blurred and noised at random (the network is told how much it was noised), since what the stage
    before puts out is never quite a reduced real film.

    Args:
        films: the set.
        batch: crops a step.
        crop: their side in pixels of the film made.
        step: canvas side over the side of the film made (1 for the finest).
        unit: standard deviation of the detail; None: measured.
        device: where batches lie.
    """

    def __init__(
        self, films: FilmSet, *, batch: int, crop: int, step: int, unit: float | None = None, device: str = "cpu"
    ) -> None:
        self.films, self.batch, self.crop, self.device = films, batch, crop, device
        self.spacing_mm = films.spacing_mm * step
        before = max(1, step // 2)  # warps read films of twice the resolution made, not finer
        self.step = step // before
        canvas = films.pixels.shape[-1] // before
        self.room = canvas - self.size
        if self.room < 0:
            raise ValueError(f"a crop of {self.size} px doesn't fit a canvas of {canvas}")
        pixels = held_pixels(films, before)
        self.pixels = (pixels if device == "cpu" else pixels.half()).to(device)
        self.fields = torch.tensor([film.field for film in films.films]) // before
        self.unit = 1.0
        if unit is None:  # the median crop's SD: markers and collimator edges would make it too large for lung
            sides = films.side(held_out=False)
            clean = self._batch([sides[i % len(sides)] for i in range(48)], np.random.default_rng(0), change=False)
            unit = float(clean.data.std(dim=(1, 2, 3)).median())
        self.unit = unit

    @property
    def size(self) -> int:
        """Side of a crop with its margin, in pixels of the films held."""
        return (self.crop + 2 * MARGIN * REDUCTION) * self.step

    def constants(self) -> dict[str, float]:
        """What a sampler must know beside the weights."""
        return {"unit": self.unit, "spacing_mm": self.spacing_mm}

    def train_batch(self, rng: np.random.Generator) -> FlowBatch:
        """A batch of changed crops of training films."""
        return self._batch(rng.choice(self.films.side(held_out=False), self.batch).tolist(), rng, change=True)

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """One crop of each of the first films of one side, unchanged, condition clean: the same each time."""
        return [self._batch(self.films.side(held_out=held_out)[:MEASURED], np.random.default_rng(1), change=False)]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Rows: held-out crops, their coarse version upsampled, the network's; six across."""
        generator = torch.Generator().manual_seed(seed)
        real = self.measured_batches(held_out=True)[0]
        told = {name: value[:6] for name, value in real.inputs.items()}
        data, mask, upsampled = real.data[:6], real.mask[:6], told["condition"][:, :1]
        noise = torch.randn(data.shape, generator=generator).to(self.device)
        made = sample(guided(network, **told), noise, times=sampling_times(8), mask=mask)
        shown = [upsampled + data * self.unit, upsampled, upsampled + made * self.unit]
        return _tiles(torch.cat(shown), across=len(data))

    def _batch(self, chosen: list[int], rng: np.random.Generator, *, change: bool) -> FlowBatch:
        count, edge = len(chosen), MARGIN * REDUCTION
        corners = torch.from_numpy(self._corners(chosen, rng))
        films, weights = self._parts(chosen, corners, draw_film_change(rng, count) if change else None)
        coarse = reduce(films, REDUCTION)
        level = torch.zeros(count, device=self.device)
        if change:
            level = torch.from_numpy(rng.uniform(0, 1, count).astype(np.float32)).to(self.device)
            blur = (rng.uniform(0, 0.6, count) * (rng.random(count) < 0.5)).astype(np.float32)
            noise = torch.from_numpy(rng.standard_normal(tuple(coarse.shape), dtype=np.float32)).to(self.device)
            coarse = blur_and_noise(
                coarse, blur=torch.from_numpy(blur).to(self.device), noise=noise, sd=level * self.unit
            )
        inner = (..., slice(edge, -edge), slice(edge, -edge))
        upsampled, mask = upsample(coarse)[inner], (weights[inner] > 0.5).float()
        data = ((films[inner] - upsampled) / self.unit).clamp(-LARGEST, LARGEST)
        condition = torch.cat([upsampled, mask], dim=1)
        return FlowBatch(data=data, mask=mask, inputs={"condition": condition, "level": level})

    def _corners(self, chosen: list[int], rng: np.random.Generator) -> NDArray[np.int64]:
        """[B, 2] first row and column of each crop in the canvas, at least half of it inside the field."""
        corners = np.zeros((len(chosen), 2), dtype=np.int64)
        for corner, index in zip(corners, chosen, strict=True):
            top, left, rows, columns = self.fields[index].tolist()
            for _ in range(20):
                corner[:] = rng.integers(0, self.room + 1, 2)
                height = min(corner[0] + self.size, top + rows) - max(corner[0], top)
                width = min(corner[1] + self.size, left + columns) - max(corner[1], left)
                if min(height, width) > 0 and height * width > 0.5 * self.size**2:
                    break
        return corners

    def _parts(self, chosen: list[int], corners: Tensor, change: FilmChange | None) -> tuple[Tensor, Tensor]:
        """Films and masks [B, 1, s, s] of the crops with their margin, at the resolution made.

        A warp would blur the very detail that the finest stage learns, so there only the exposure changes.
        """
        if change is not None and self.step > 1:
            films, masks = apply_film_change(
                self.pixels[chosen], self.fields[chosen], change, corners=corners, size=self.size
            )
        else:
            corners = corners.to(self.device)
            rows, columns = (corners[:, k, None] + torch.arange(self.size, device=self.device) for k in (0, 1))
            index = torch.tensor(chosen, device=self.device)
            parts = self.pixels[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].float()
            films = parts[..., 0][:, None]
            top, left, height, width = self.fields[chosen].to(self.device)[:, :, None].unbind(1)
            inside_rows, inside_columns = (
                (rows >= top) & (rows < top + height),
                (columns >= left) & (columns < left + width),
            )
            masks = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None].float()
            if parts.shape[-1] == 2:
                masks = masks * parts[..., 1][:, None]
            if change is not None:
                films = apply_gamma(films, torch.from_numpy(change.gamma).to(self.device))
        return reduce(films, self.step), reduce(masks, self.step)


def held_pixels(films: FilmSet, factor: int) -> Tensor:
    """[film, 1, row, column] the films reduced; a second channel holds the mask where it is no rectangle."""
    pixels = torch.from_numpy(films.pixels)[:, None]
    if films.inside is not None:
        pixels = torch.cat([pixels, torch.from_numpy(films.inside)[:, None].float()], dim=1)
    return torch.cat([reduce(part, factor) for part in pixels.split(16)])


def no_change(count: int) -> FilmChange:
    """Changes that leave the films as they are."""
    zero, one = np.zeros(count, np.float32), np.ones(count, np.float32)
    elastic = np.zeros((count, 2, 5, 5), np.float32)
    return FilmChange(shift=np.zeros((count, 2), np.float32), rotation=zero, scale=one, elastic=elastic, gamma=one)


def blur_and_noise(coarse: Tensor, *, blur: Tensor, noise: Tensor, sd: Tensor) -> Tensor:
    """The coarse images mixed with their 3x3 mean by `blur` (0..1), plus noise of SD `sd`; [B, 1, H, W], [B]."""
    soft = nn.functional.avg_pool2d(nn.functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = blur[:, None, None, None]
    return (1 - share) * coarse + share * soft + noise * sd[:, None, None, None]


def _tiles(images: Tensor, *, across: int) -> NDArray[np.uint8]:
    """Images in -1..1 as one grey sheet, `across` in a row."""
    grey = ((images[:, 0].float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    rows = [np.concatenate(list(grey[start : start + across]), axis=1) for start in range(0, len(grey), across)]
    return np.concatenate([row for row in rows if row.shape == rows[0].shape], axis=0)
