"""What each stage of a cascade learns: the coarse film from noise and codes, then detail x4, and x4 again, on crops.

A stage turns a step number into a batch on its device (all randomness from one generator of that step, so a resumed run
goes on as if never cut), gives the same measured loss for training and held-out films, and draws a sheet.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.background.cascade import REDUCTION, upsample
from HiResMedSynthLib.background.film_network import PICTURE, STEM, FilmNetwork
from HiResMedSynthLib.background.quantiser import count_codes, perplexity, usage
from HiResMedSynthLib.background.token_layers import to_digits
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.flow import FlowBatch, guided, sample, sampling_times
from Training.augment import (
    USUAL,
    WIDE,
    FilmChange,
    apply_film_change,
    apply_gamma,
    draw_film_change,
    no_change,
    reduce,
)
from Training.draws import Draws
from Training.film_data import GIVE_SPACING, NO_WHOLE_FILM, FilmSet
from Training.pictures import grey8, tiled

LARGEST = 8.0  # units of residual; beyond it only the edges of burnt-in letters, which would rule the loss
MARGIN = 4  # coarse pixels around a crop, so that upsampling sees true neighbours
NONE_KNOWN, ALL_KNOWN = 0.4, 0.2  # shares of films told no code, and all; the others are told a part
TRIES = 20  # for a crop that lies in the field
MEASURED = 24  # films of each side whose loss is measured


class CoarseFilm:
    """Stage "film": whole films from noise, told the field, the sex, and a random part of their own codes.

    Args:
        films: the set.
        batch: films a step.
        label_drop: share of films whose sex is withheld.
        reduction: canvas side over film side (16 makes 64 px of 1024).
        grid: side of the code grid.
        wide: whether films are changed further than positioning does (see `augment.WIDE`).
        unit: standard deviation the values are scaled by; None: measured.
        device: where batches lie.

    Raises:
        SettingsError: no film of known spacing on one side of the split.
    """

    def __init__(
        self,
        films: FilmSet,
        *,
        batch: int,
        label_drop: float,
        grid: int,
        reduction: int = REDUCTION**2,
        wide: bool = False,
        unit: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.films, self.batch, self.label_drop, self.grid, self.device = films, batch, label_drop, grid, device
        self.within = WIDE if wide else USUAL
        canvas = films.pixels.shape[-1]
        self.reduction, self.size = reduction, canvas // reduction
        self.step = max(1, reduction // (2 * PICTURE))  # warps read films of twice the picture's side where there are
        self.pixels = held_pixels(films, self.step).to(device)
        self.fields = torch.tensor([film.field for film in films.films], device=device).float() / self.step
        self.labels = torch.tensor([film.label for film in films.films], device=device)
        whole = [[i for i in films.side(held_out=side) if films.films[i].whole] for side in (False, True)]
        if not all(whole):
            raise SettingsError(NO_WHOLE_FILM, remedy=GIVE_SPACING)
        self.sides = [torch.tensor(side, dtype=torch.long, device=device) for side in whole]
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
        return self.device_batch(Draws.of(rng, self.device))

    def device_batch(self, draws: Draws) -> FlowBatch:
        """The same by `draws`."""
        return self._batch(draws.one_of(self.sides[0], self.batch), draws)

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """The first films of one side, unchanged, told no code: the same ones each time."""
        return [self._batch(self.sides[int(held_out)][:MEASURED], None)]

    def noted(self, network: nn.Module) -> dict[str, float]:
        """Use and perplexity of the codes of the measured held-out films, cells of padding left out."""
        assert isinstance(network, FilmNetwork)
        quantise = network.encoder.quantise
        picture = self.measured_batches(held_out=True)[0].inputs["picture"]
        inside = reduce(picture[:, 1:], picture.shape[-1] // self.grid)[:, 0] > 0.5
        chosen = quantise.to_index(to_digits(network.encoder(picture), quantise.levels))
        counts = count_codes(chosen[inside], quantise.entries)
        return {"code_use": usage(counts), "code_perplexity": perplexity(counts)}

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
        return tiled(grey8(torch.cat(rows)[:, 0] * self.unit), across=8)

    def _batch(self, chosen: Tensor, draws: Draws | None, *, known: float = 0.0) -> FlowBatch:
        pixels, fields, count = self.pixels[chosen], self.fields[chosen], len(chosen)
        corners = torch.zeros(count, 2, dtype=torch.long, device=self.device)
        change = no_change(count, self.device) if draws is None else draw_film_change(draws, count, self.within)
        films, masks = apply_film_change(pixels, fields, change, corners=corners, size=pixels.shape[-1])
        to_picture = self.reduction // (PICTURE * self.step)
        picture, field = reduce(films, to_picture), reduce(masks, to_picture)
        mask = (reduce(field, PICTURE) > 0.5).float()
        label = self.labels[chosen]
        told = torch.full((count, 1, self.grid, self.grid), known, device=self.device)
        if draws is not None:
            label = label * (draws.uniform(0, 1, count) >= self.label_drop)
            told = draw_known(draws, count, self.grid)
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


def draw_known(draws: Draws, count: int, grid: int) -> Tensor:
    """[count, 1, grid, grid] 0 or 1: which codes are told: none, all, scattered ones, or whole regions."""
    share, kind, scattered = (draws.uniform(0, 1, count, 1) for _ in range(3))
    noise = draws.uniform(0, 1, count, grid**2)
    coarse = draws.uniform(0, 1, count, 1, 4, 4)  # regions: a smooth field above a threshold
    spread = nn.functional.interpolate(coarse, size=grid, mode="bicubic").reshape(count, -1)
    order = torch.where(scattered < 0.5, noise, spread).argsort(1).argsort(1) / grid**2  # ranks, 0..1
    known = (order < share) & (kind >= NONE_KNOWN) | (kind > 1 - ALL_KNOWN)
    return known.float().reshape(count, 1, grid, grid)


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
        self.fields = torch.tensor([film.field for film in films.films], device=device) // before
        self.sides = [
            torch.tensor(films.side(held_out=side), dtype=torch.long, device=device) for side in (False, True)
        ]
        self.unit = 1.0
        if unit is None:  # the median crop's SD: markers and collimator edges would make it too large for lung
            shown = self.sides[0][torch.arange(48, device=device) % len(self.sides[0])]
            clean = self._batch(shown, Draws.of(np.random.default_rng(0), device), change=False)
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
        return self.device_batch(Draws.of(rng, self.device))

    def device_batch(self, draws: Draws) -> FlowBatch:
        """The same by `draws`."""
        return self._batch(draws.one_of(self.sides[0], self.batch), draws, change=True)

    def measured_batches(self, *, held_out: bool) -> list[FlowBatch]:
        """One crop of each of the first films of one side, unchanged, condition clean: the same each time."""
        draws = Draws.of(np.random.default_rng(1), self.device)
        return [self._batch(self.sides[int(held_out)][:MEASURED], draws, change=False)]

    def noted(self, network: nn.Module) -> dict[str, float]:  # noqa: ARG002 (protocol)
        """Nothing more."""
        return {}

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Rows: held-out crops, their coarse version upsampled, the network's; six across."""
        generator = torch.Generator().manual_seed(seed)
        real = self.measured_batches(held_out=True)[0]
        told = {name: value[:6] for name, value in real.inputs.items()}
        data, mask, upsampled = real.data[:6], real.mask[:6], told["condition"][:, :1]
        noise = torch.randn(data.shape, generator=generator).to(self.device)
        made = sample(guided(network, **told), noise, times=sampling_times(8), mask=mask)
        shown = [upsampled + data * self.unit, upsampled, upsampled + made * self.unit]
        return tiled(grey8(torch.cat(shown)[:, 0]), across=len(data))

    def _batch(self, chosen: Tensor, draws: Draws, *, change: bool) -> FlowBatch:
        count, edge = len(chosen), MARGIN * REDUCTION
        corners = self._corners(chosen, draws)
        films, weights = self._parts(chosen, corners, draw_film_change(draws, count) if change else None)
        coarse = reduce(films, REDUCTION)
        level = torch.zeros(count, device=self.device)
        if change:
            level = draws.uniform(0, 1, count)
            blur = draws.uniform(0, 0.6, count) * (draws.uniform(0, 1, count) < 0.5)
            coarse = blur_and_noise(coarse, blur=blur, noise=draws.normal(1, *coarse.shape), sd=level * self.unit)
        inner = (..., slice(edge, -edge), slice(edge, -edge))
        upsampled, mask = upsample(coarse)[inner], (weights[inner] > 0.5).float()
        data = ((films[inner] - upsampled) / self.unit).clamp(-LARGEST, LARGEST)
        condition = torch.cat([upsampled, mask], dim=1)
        return FlowBatch(data=data, mask=mask, inputs={"condition": condition, "level": level})

    def _corners(self, chosen: Tensor, draws: Draws) -> Tensor:
        """[B, 2] first row and column of each crop in the canvas, at least half of it inside the field."""
        tried = draws.below(self.room + 1, len(chosen), TRIES, 2)
        first, length = self.fields[chosen][:, None].split(2, dim=-1)  # each [B, 1, 2]
        inside = (torch.minimum(tried + self.size, first + length) - torch.maximum(tried, first)).clamp(min=0)
        good = inside.prod(-1) > 0.5 * self.size**2  # [B, tries]
        return tried[torch.arange(len(chosen), device=self.device), good.float().argmax(1)]

    def _parts(self, chosen: Tensor, corners: Tensor, change: FilmChange | None) -> tuple[Tensor, Tensor]:
        """Films and masks [B, 1, s, s] of the crops with their margin, at the resolution made.

        A warp would blur the very detail that the finest stage learns, so there only the exposure changes.
        """
        if change is not None and self.step > 1:
            films, masks = apply_film_change(
                self.pixels[chosen], self.fields[chosen], change, corners=corners, size=self.size
            )
        else:
            rows, columns = (corners[:, k, None] + torch.arange(self.size, device=self.device) for k in (0, 1))
            parts = self.pixels[chosen[:, None, None], :, rows[:, :, None], columns[:, None, :]].float()
            films = parts[..., 0][:, None]
            top, left, height, width = self.fields[chosen][:, :, None].unbind(1)
            inside_rows, inside_columns = (
                (rows >= top) & (rows < top + height),
                (columns >= left) & (columns < left + width),
            )
            masks = (inside_rows[:, :, None] & inside_columns[:, None, :])[:, None].float()
            if parts.shape[-1] == 2:
                masks = masks * parts[..., 1][:, None]
            if change is not None:
                films = apply_gamma(films, change.gamma)
        return reduce(films, self.step), reduce(masks, self.step)


def held_pixels(films: FilmSet, factor: int) -> Tensor:
    """[film, 1, row, column] the films reduced; a second channel holds the mask where it is no rectangle."""
    pixels = torch.from_numpy(films.pixels)[:, None]
    if films.inside is not None:
        pixels = torch.cat([pixels, torch.from_numpy(films.inside)[:, None].float()], dim=1)
    return torch.cat([reduce(part, factor) for part in pixels.split(16)])


def blur_and_noise(coarse: Tensor, *, blur: Tensor, noise: Tensor, sd: Tensor) -> Tensor:
    """The coarse images mixed with their 3x3 mean by `blur` (0..1), plus noise of SD `sd`; [B, 1, H, W], [B]."""
    soft = nn.functional.avg_pool2d(nn.functional.pad(coarse, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    share = blur[:, None, None, None]
    return (1 - share) * coarse + share * soft + noise * sd[:, None, None, None]


def make_stage(
    name: str,
    preset: dict[str, Any],
    films: FilmSet,
    *,
    batch: int | None = None,
    unit: float | None = None,
    device: str = "cpu",
) -> CoarseFilm | Detail:
    """The stage of that name, over these films, `batch` at a time (None: the preset's).

    `unit`: what its values are scaled by, None: measured; a resumed run keeps the unit it began with.
    """
    table = preset[name]
    batch = table["batch"] if batch is None else batch
    if "code" not in table:
        return Detail(films, batch=batch, crop=table["crop"], step=table["step"], unit=unit, device=device)
    reduction = table["reduction"]
    picture = films.pixels.shape[-1] // reduction * PICTURE
    grid = picture // (STEM * 2 ** (len(table["code"]["widths"]) - 1))
    return CoarseFilm(
        films,
        batch=batch,
        label_drop=table["label_drop"],
        reduction=reduction,
        grid=grid,
        wide=table.get("wide", False),
        unit=unit,
        device=device,
    )
