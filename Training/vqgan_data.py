"""Whole films as tensors on the training device, and batches of them that depend on seed and step alone.

Sources: a folder (Training/film_data.py); a `.npy` that film_data.py wrote, its `.json` beside it; or a `.npz` with
`films` uint8 [N, S, S], `masks` uint8 [N, S, S] and `held_out` bool [N].
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.whole_tensors import reason
from Training.folder_of_images import FORMATS

if TYPE_CHECKING:
    from Training.film_data import FilmSet

SHIFT = 0.05  # largest move of a changed film, as a share of its side
GAMMA = (0.8, 1.25)


@dataclass(frozen=True, kw_only=True)
class FilmTensors:
    """Films [N, 1, S, S], float16 in -1..1; their fields [N, 1, S, S], bool; which are held out, [N] bool."""

    films: Tensor
    masks: Tensor
    held_out: Tensor

    @property
    def size(self) -> int:
        """Side in pixels."""
        return int(self.films.shape[-1])

    @property
    def sha256(self) -> str:
        """Of films, fields and sides."""
        digest = hashlib.sha256()
        for part in (self.films, self.masks, self.held_out):
            digest.update(np.ascontiguousarray(part.cpu().numpy()).data)
        return digest.hexdigest()

    def to(self, device: str) -> FilmTensors:
        """The same on a device; `held_out` stays on the CPU."""
        return replace(self, films=self.films.to(device), masks=self.masks.to(device))

    def side(self, *, held_out: bool) -> Tensor:
        """Indices of the training films, or of those held out."""
        return torch.nonzero(self.held_out == held_out).flatten()

    def chosen(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(images float32, masks float32) of these films, [n, 1, S, S], outside their field 0."""
        place = indices.to(self.films.device)
        mask = self.masks[place].float()
        return self.films[place].float() * mask, mask

    def train_batch(
        self, *, step: int, batch: int, seed: int, change: bool, rank: int = 0, world: int = 1
    ) -> tuple[Tensor, Tensor]:
        """This rank's part of a step's batch: the training films in an order drawn anew for each epoch.

        A change is a shift by whole pixels and another gamma: both leave the finest detail its power.
        """
        sides = self.side(held_out=False)
        places = np.arange(step * batch, (step + 1) * batch)
        order = {
            int(epoch): np.random.default_rng((seed, int(epoch))).permutation(len(sides))
            for epoch in np.unique(places // len(sides))
        }
        indices = sides[[int(order[int(p // len(sides))][p % len(sides)]) for p in places]][rank::world]
        image, mask = self.chosen(indices)
        if not change:
            return image, mask
        rng = np.random.default_rng((seed, step, 1))  # drawn for the whole batch, so that ranks don't share changes
        room = int(SHIFT * self.size)
        shifts = rng.integers(-room, room + 1, (batch, 2))[rank::world]
        gammas = np.exp(rng.uniform(np.log(GAMMA[0]), np.log(GAMMA[1]), batch))[rank::world]
        for number, ((down, right), gamma) in enumerate(zip(shifts, gammas, strict=True)):
            image[number] = shifted(2 * ((image[number] + 1) / 2).clamp(0, 1) ** float(gamma) - 1, down, right)
            mask[number] = shifted(mask[number], down, right)
        return image * mask, mask


def shifted(image: Tensor, down: int, right: int) -> Tensor:
    """[..., H, W] moved by whole pixels; 0 where nothing came from."""
    rows, columns = image.shape[-2:]
    padded = nn.functional.pad(image, (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0)))
    top, left = max(-down, 0), max(-right, 0)
    return padded[..., top : top + rows, left : left + columns]


def from_film_set(films: FilmSet, *, size: int) -> FilmTensors:
    """A film set reduced to `size` pixels.

    Raises:
        SettingsError: `size` doesn't divide the canvas.
    """
    masks = torch.from_numpy(films.masks())[:, None]
    pixels = torch.from_numpy(films.pixels)[:, None]
    held_out = torch.tensor([film.held_out for film in films.films])
    return reduced(pixels, masks, held_out, size=size)


def load_film_tensors(path: Path, *, size: int) -> FilmTensors:
    """The films of a `.npz` or `.npy` file (see the head of this module), reduced to `size` pixels.

    Raises:
        ReadError: it is no such file.
        SettingsError: `size` doesn't divide its films' side.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                pixels = torch.from_numpy(stored["films"]).float()[:, None] / 127.5 - 1
                masks = torch.from_numpy(stored["masks"])[:, None] > 0
                held_out = torch.from_numpy(stored["held_out"]).bool()
        else:
            from Training.film_data import Film, FilmSet

            listed: list[dict[str, Any]] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            films = tuple(Film(**{**entry, "field": tuple(entry["field"])}) for entry in listed)
            film_set = FilmSet(pixels=np.load(path, allow_pickle=False), films=films, spacing_mm=0.0)
            return from_film_set(film_set, size=size)
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise ReadError(f"These are no prepared films: {reason(problem)}", where=path, remedy=FORMATS) from None
    if pixels.shape != masks.shape or len(pixels) != len(held_out):
        raise ReadError("Films, masks and held_out don't belong together", where=path, remedy="Make the file again.")
    return reduced(pixels, masks, held_out, size=size)


def reduced(pixels: Tensor, masks: Tensor, held_out: Tensor, *, size: int) -> FilmTensors:
    """Films [N, 1, H, H] and masks by means over blocks, to `size` pixels.

    Raises:
        SettingsError: `size` doesn't divide H, or one side of the split is empty.
    """
    side = pixels.shape[-1]
    if side % size:
        raise SettingsError(f"Films of {side} px can't be reduced to {size}", remedy="Choose a size that divides it.")
    if bool(held_out.all()) or not bool(held_out.any()):
        raise SettingsError(
            "None or all of the films are held out to measure on", remedy="Give films of more patients."
        )
    small = [nn.functional.adaptive_avg_pool2d(part.float(), size).half() for part in pixels.split(16)]
    inside = [nn.functional.adaptive_avg_pool2d(part.float(), size) > 0.5 for part in masks.split(16)]
    return FilmTensors(films=torch.cat(small), masks=torch.cat(inside), held_out=held_out)


def load_data(data: Path | None, films: Path | None, cache: Path, *, size: int, canvas: dict[str, Any]) -> FilmTensors:
    """The films of a folder or of a file.

    Raises:
        SettingsError: not exactly one of both was given.
    """
    if (data is None) == (films is None):
        raise SettingsError("Films come from one place", remedy="Give --data FOLDER or --films FILE.")
    if films is not None:
        return load_film_tensors(films, size=size)
    from Training.film_data import load_films

    assert data is not None
    return from_film_set(load_films(data, cache, **canvas), size=size)
