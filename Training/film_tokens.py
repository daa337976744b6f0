"""The codes of films, by a trained cascade's encoder: of the films as they are, and of many changed copies.

A prior that saw the same codes of a film again and again would learn them by heart; the codes of a changed film differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from HiResMedSynthLib.background.cascade import FilmCascade
from HiResMedSynthLib.background.film_network import PICTURE
from HiResMedSynthLib.background.token_layers import to_digits
from Training.augment import apply_film_change, draw_film_change, no_change, reduce
from Training.draws import Draws
from Training.film_data import FilmSet
from Training.film_stages import held_pixels

AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class CodedFilms:
    """Codes of n films: digits [n, D, g, g] uint8, the share of each cell that is film [n, g, g], classes [n]."""

    digits: Tensor
    field: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: str) -> CodedFilms:
        """The same on that device."""
        return CodedFilms(digits=self.digits.to(device), field=self.field.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True)
class FilmTokens:
    """`changed`: copies x training films, copy after copy; `train` and `held_out`: each film once, as it is."""

    changed: CodedFilms
    train: CodedFilms
    held_out: CodedFilms


class FilmEncoder:
    """Films of a set through a cascade's encoder, changed the way the first stage saw them changed."""

    def __init__(self, films: FilmSet, cascade: FilmCascade, *, device: str = "cpu") -> None:
        self.films, self.device = films, device
        self.network = cascade.first.to(device)
        self.grid = cascade.grid
        reduction = films.pixels.shape[-1] // cascade.film_side
        self.step = max(1, reduction // (2 * PICTURE))  # warps read twice the encoder's resolution where there is it
        self.to_picture = max(1, reduction // (PICTURE * self.step))
        self.pixels = held_pixels(films, self.step).to(device)
        self.fields = torch.tensor([film.field for film in films.films]).float() / self.step

    def sides(self) -> tuple[list[int], list[int]]:
        """Indices of the training and the held-out films whose size in mm is known."""
        whole = [[i for i in self.films.side(held_out=side) if self.films.films[i].whole] for side in (False, True)]
        return whole[0], whole[1]

    def tokens(self, *, copies: int, seed: int) -> FilmTokens:
        """All codes; the changes depend on the seed alone."""
        train, held_out = self.sides()
        rng = np.random.default_rng((seed, 5))
        return FilmTokens(
            changed=self.coded(train * copies, rng), train=self.coded(train, None), held_out=self.coded(held_out, None)
        )

    @torch.no_grad()
    def coded(self, chosen: list[int], rng: np.random.Generator | None) -> CodedFilms:
        """The codes of these films; changed by `rng`, or as they are."""
        digits, fields = [], []
        for start in range(0, len(chosen), AT_ONCE):
            part = chosen[start : start + AT_ONCE]
            where = self.pixels.device
            change = no_change(len(part), where) if rng is None else draw_film_change(Draws.of(rng, where), len(part))
            corners = torch.zeros(len(part), 2, dtype=torch.long, device=where)
            size = self.pixels.shape[-1]
            moved, masks = apply_film_change(self.pixels[part], self.fields[part], change, corners=corners, size=size)
            picture, field = reduce(moved, self.to_picture), reduce(masks, self.to_picture)
            values = self.network.encoder(torch.cat([picture, field], dim=1))
            digits.append(to_digits(values, self.network.code_shape.levels).to(torch.uint8).cpu())
            fields.append(reduce(field, field.shape[-1] // self.grid)[:, 0].cpu())
        labels = torch.tensor([self.films.films[i].label for i in chosen])
        return CodedFilms(digits=torch.cat(digits), field=torch.cat(fields), labels=labels)
