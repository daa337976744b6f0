"""Training films on the training device, and batches of them drawn there: nothing here waits for the device."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from Training.vqgan_data import GAMMA, SHIFT, FilmTensors


class DeviceFilms:
    """The training films of a set, [N, 1, S, S] in -1..1, and their fields.

    Padding keeps the nearest film pixel's grey; the masks say where it is, so that it enters no loss.
    """

    def __init__(self, films: FilmTensors, device: str) -> None:
        chosen = films.side(held_out=False)
        self.films = films.films[chosen].float().to(device)
        self.masks = films.masks[chosen].float().to(device)

    def __len__(self) -> int:
        return len(self.films)

    @property
    def size(self) -> int:
        """Side in pixels."""
        return int(self.films.shape[-1])

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """(films, masks) [count, 1, S, S], shifted by whole pixels and with another gamma, by torch's own stream."""
        device = self.films.device
        index = torch.randint(len(self), (count,), device=device)
        room = int(SHIFT * self.size)
        shift = torch.randint(-room, room + 1, (count, 2), device=device)
        low, high = map(math.log, GAMMA)
        gamma = (low + (high - low) * torch.rand(count, 1, 1, 1, device=device)).exp()
        film, mask = (moved(part[index], shift) for part in (self.films, self.masks))
        return 2 * ((film + 1) / 2).clamp(0, 1).pow(gamma) - 1, mask * within(shift, shift + self.size, self.size)


def moved(images: Tensor, shift: Tensor) -> Tensor:
    """[B, 1, S, S] moved by whole pixels (down, right) [B, 2]; the border's grey where nothing came from."""
    side = images.shape[-1]
    place = torch.arange(side, device=images.device)
    row, column = ((place - shift[:, axis, None]).clamp(0, side - 1) for axis in (0, 1))
    # gathered, not indexed: the gradient of indexing sorts all pixels
    down = images.gather(2, row[:, None, :, None].expand_as(images))
    return down.gather(3, column[:, None, None, :].expand_as(images))


def within(low: Tensor, high: Tensor, side: int) -> Tensor:
    """[B, 1, side, side] bool: the pixels from `low` to before `high`, each [B, 2] (row, column)."""
    place = torch.arange(side, device=low.device)
    row, column = ((place >= low[:, axis, None]) & (place < high[:, axis, None]) for axis in (0, 1))
    return row[:, None, :, None] & column[:, None, None, :]


def diff_augmented(images: Tensor) -> Tensor:
    """DiffAugment (Zhao et al. 2020), each image changed anew by torch's own stream on its device; 0 where none is.

    As the VQGAN's adversary has it: shifts up to 1/8, a hole of 1/4, brightness within .1.
    """
    count, side, device = len(images), images.shape[-1], images.device
    shift = torch.randint(-(side // 8), side // 8 + 1, (count, 2), device=device)
    corner = torch.randint(0, side - side // 4 + 1, (count, 2), device=device)
    brightness = (torch.rand(count, 1, 1, 1, device=device) * 2 - 1) * 0.1
    seen = within(shift, shift + side, side) & ~within(corner, corner + side // 4, side)
    return moved(images + brightness, shift) * seen


def hash_of(films: FilmTensors) -> str:
    """SHA-256 of the films, as they are learned from."""
    return hashlib.sha256(films.films.numpy().tobytes()).hexdigest()
