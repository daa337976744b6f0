"""The task of the film network: batches of films that look otherwise each time, with what is known of their structures.

Every structure is a yes or no of its own (on a film they overlap), counted only where it is known. Format of the data:
Training/danger_film_sources.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.patient_split import held_out_patients
from HiResMedSynthLib.placement.network import NetworkPlan, PlacementNetwork
from HiResMedSynthLib.placement.regions_film import CHANNELS, SHORT_PX, STRUCTURES, TASK, film_channels
from Training.danger_film_looks import (
    Box,
    Placing,
    apply_look,
    arm_layers,
    draw_arms,
    draw_box_on_film,
    draw_box_round_lungs,
    draw_look,
    draw_placing,
    straight,
)
from Training.danger_film_sources import RealFilm, Sources, box_of, read_sources
from Training.danger_film_structures import BODY, LUNG, RIBS
from Training.picture_loop import PictureBatch
from Training.projected_films import PIXEL_MM, ProjectedFilm, projected_films

VIEWS = 48  # of each volume
REAL_SHARE = 0.6  # of a batch, where there are both
WHOLE_SHARE = 0.2  # projected films that are not collimated to the lungs
ARM_BONE_MM, ARM_FLESH_MM = 3.0, 15.0
NOBODY = "nobody"
MEASURED = (12, 8)  # real, projected films of each side
SHEET_FILMS = 8
COLOURS = ((0, 120, 255), (255, 0, 0), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 255, 255), (255, 255, 255))
Entry = TypeVar("Entry")
Example = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]


def load_task(data: Sequence[Path], *, batch: int, hold_out: Sequence[str], seed: int) -> FilmTask:
    """The task over these folders.

    Args:
        data: folders of films, CT volumes and anatomy masks.
        batch: films a step.
        hold_out: patients or folders kept out of training, or "nobody"; empty: by the hash of the patient.
        seed: of the projected views.

    Raises:
        ReadError: the folders can't be used, or nothing is left to train on.
    """
    return FilmTask(read_sources(data), batch=batch, hold_out=hold_out, seed=seed)


class FilmTask:
    """A PictureTask over real and projected films."""

    def __init__(
        self, sources: Sources, *, batch: int, hold_out: Sequence[str], seed: int, views: int | None = None,
        cache: Path | None = None,
    ) -> None:  # fmt: skip
        check_split(sources, hold_out)

        by_rule = held_out_patients({*(one.patient for one in sources.films), *(v.patient for v in sources.volumes)})

        def out(patient: str, folder: str) -> bool:
            return patient in hold_out or folder in hold_out if hold_out else patient in by_rule

        self.batch = batch
        self.real: dict[bool, list[RealFilm]] = {False: [], True: []}
        self.projected: dict[bool, list[ProjectedFilm]] = {False: [], True: []}
        for film in sources.films:
            self.real[out(film.patient, film.source)].append(film)
        held_volumes = [out(v.patient, f) for v, f in zip(sources.volumes, sources.folders, strict=True)]
        held_out = bool(self.real[True]) or any(held_volumes)
        if (not self.real[False] and all(held_volumes)) or not (held_out or NOBODY in hold_out):
            raise ReadError("one side of the split is empty", remedy="Say with --hold-out whom to measure on.")
        for volume, held in zip(sources.volumes, held_volumes, strict=True):
            films = projected_films(volume, views or VIEWS, seed=seed, cache=cache)
            self.projected[held] += films[: MEASURED[1]] if held else films
        self.plan = NetworkPlan(task=TASK, classes=STRUCTURES, channels=CHANNELS, facts={"short_px": float(SHORT_PX)})
        self.counts = {
            f"{kind} {side}": len(films[held])
            for kind, films in (("real films", self.real), ("projected films", self.projected))
            for side, held in (("to train on", False), ("held out", True))
        }
        self._measured: dict[bool, list[PictureBatch]] = {}

    def constants(self) -> dict[str, float]:
        """The plan's facts."""
        return dict(self.plan.facts)

    def train_batch(self, rng: np.random.Generator) -> PictureBatch:
        """Films drawn, cut, bent and repainted."""
        real, projected = self.real[False], self.projected[False]
        share = REAL_SHARE if real and projected else float(bool(real))
        examples = [
            drawn_real(rng, real[rng.integers(len(real))])
            if rng.random() < share
            else drawn_projected(rng, projected[rng.integers(len(projected))])
            for _ in range(self.batch)
        ]
        return as_batch(examples)

    def loss(self, logits: Tensor, batch: PictureBatch) -> Tensor:
        """Cross-entropy and 1 - Dice of each structure where it is known, then their mean over the structures."""
        return film_loss(logits, batch.targets["there"], batch.targets["sure"])

    def measured_batches(self, *, held_out: bool) -> list[PictureBatch]:
        """Films as they are."""
        if held_out not in self._measured:
            real, projected = self.real[held_out], self.projected[held_out]
            examples = [plain_real(film) for film in _spaced(real, MEASURED[0])]
            examples += [plain_projected(film) for film in _spaced(projected, MEASURED[1])]
            parts = [examples[k : k + 4] for k in range(0, len(examples), 4)]
            self._measured[held_out] = [as_batch(part) for part in parts]
        return self._measured[held_out]

    def sheet(self, network: nn.Module, *, seed: int) -> NDArray[np.uint8]:
        """Held-out films (else trained ones) with the outlines that the network draws."""
        del seed
        batches = self.measured_batches(held_out=True) or self.measured_batches(held_out=False)
        pictures = np.concatenate([b.picture.cpu().numpy() for b in batches])
        pictures = pictures[np.linspace(0, len(pictures) - 1, min(SHEET_FILMS, len(pictures))).astype(int)]
        logits = PlacementNetwork.of(self.plan, network).logits(pictures)
        tiles = [outlined(p[0] / 2 + 0.5, answer > 0) for p, answer in zip(pictures, logits, strict=True)]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
        return np.vstack([np.hstack(tiles[k : k + 4]) for k in range(0, len(tiles), 4)])


def check_split(sources: Sources, hold_out: Sequence[str]) -> None:
    """Refuses pictures of one patient, and names that nobody bears.

    Raises:
        ReadError: see above.
    """
    patients = {film.patient for film in sources.films} | {volume.patient for volume in sources.volumes}
    if len(patients) < 2:
        raise ReadError(
            f"all pictures are of one patient ({', '.join(patients)})",
            remedy="Add a second patient's: one to learn from and one to measure on.",
        )
    known = patients | {film.source for film in sources.films} | set(sources.folders) | {NOBODY}
    if unknown := sorted(set(hold_out) - known):
        raise ReadError(
            f"nobody here is called {', '.join(unknown)}",
            remedy=f"Hold out patients or folders such as {', '.join(sorted(known - {NOBODY})[:3])}.",
        )


def film_loss(logits: Tensor, there: Tensor, sure: Tensor) -> Tensor:
    """Mean over structures of cross-entropy and 1 - Dice, both where it is known; `[B, structure, row, column]`."""
    known = sure.float()
    yes = there.float() * known
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, there.float(), reduction="none") * known
    pixels = known.sum(dim=(0, 2, 3))
    share = logits.sigmoid() * known
    overlap = (2 * (share * yes).sum(dim=(0, 2, 3)) + 1) / (share.sum(dim=(0, 2, 3)) + yes.sum(dim=(0, 2, 3)) + 1)
    told = (pixels > 0).float()
    each = entropy.sum(dim=(0, 2, 3)) / pixels.clamp(min=1) + 0.5 * (1 - overlap) * (yes.sum(dim=(0, 2, 3)) > 0)
    return (each * told).sum() / told.sum().clamp(min=1)


def as_batch(examples: Sequence[Example]) -> PictureBatch:
    """Canvases as the network sees them."""
    return PictureBatch(
        picture=torch.from_numpy(np.stack([film_channels(film) for film, _, _ in examples])),
        targets={
            "there": torch.from_numpy(np.stack([there for _, there, _ in examples])),
            "sure": torch.from_numpy(np.stack([sure for _, _, sure in examples])),
        },
    )


def drawn_real(rng: np.random.Generator, film: RealFilm) -> Example:
    """A real film that looks otherwise."""
    rows, columns = film.film.shape
    box = draw_box_on_film(rng, (rows, columns))
    canvas, there, sure = laid(film.film, film.there, film.sure, draw_placing(rng, box))
    canvas, covered = apply_look(canvas, draw_look(rng, projected=False))
    return canvas, there, sure & ~covered


def drawn_projected(rng: np.random.Generator, film: ProjectedFilm) -> Example:
    """A projected film, collimated, with arms, as detectors would show it."""
    there, sure = film.targets()
    rows, columns = film.integral.shape
    if film.chest and rng.random() > WHOLE_SHARE:
        top, bottom, left, right = box_of(there[LUNG])
        box: Box = draw_box_round_lungs(rng, (top, bottom, left, right), PIXEL_MM)
    else:
        box = draw_box_on_film(rng, (rows, columns))
    canvas, there, sure = laid(film.integral, there, sure, draw_placing(rng, box))
    mm = (box[1] - box[0]) * PIXEL_MM / SHORT_PX
    for arm in draw_arms(rng) if film.chest else ():
        flesh, bone = (layer * mm for layer in arm_layers(arm))
        canvas = canvas + flesh + 1.2 * bone
        there[RIBS] |= bone > ARM_BONE_MM
        there[BODY] |= flesh > ARM_FLESH_MM
        sure[[RIBS, BODY]] |= flesh > ARM_FLESH_MM
    canvas, covered = apply_look(canvas, draw_look(rng, projected=True))
    return canvas, there, sure & ~covered


def plain_real(film: RealFilm) -> Example:
    """The middle square of a film as it is."""
    rows, columns = film.film.shape
    side = min(rows, columns)
    top, left = (rows - side) / 2, (columns - side) / 2
    return laid(film.film, film.there, film.sure, straight((top, top + side, left, left + side)))


def plain_projected(film: ProjectedFilm) -> Example:
    """A projected film in a square; chests with 3 cm round the lungs, where the film reaches so far."""
    there, sure = film.targets()
    rows, columns = film.integral.shape
    box: Box = (0, rows, 0, columns)
    if film.chest:
        edge = 30 / PIXEL_MM
        top, bottom, left, right = box_of(there[LUNG])
        box = (max(top - edge, 0), min(bottom + edge, rows), max(left - edge, 0), min(right + edge, columns))
    return laid(film.integral, there, sure, straight(box))


def laid(film: NDArray[np.float32], there: NDArray[np.bool_], sure: NDArray[np.bool_], placing: Placing) -> Example:
    """(film, there, sure) on the canvas; beyond the film nothing is known and its edge goes on."""
    import cv2

    column, row = placing.grid()
    canvas = cv2.remap(film, column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    bits = (1 << np.arange(len(there), dtype=np.uint8))[:, np.newaxis, np.newaxis]  # one picture for all masks

    def moved(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        packed = (masks * bits).sum(axis=0, dtype=np.uint8)
        laid_out = cv2.remap(packed, column, row, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
        return np.asarray((laid_out & bits) > 0)

    return canvas, moved(there), moved(sure)


def outlined(grey: NDArray[np.float32], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """`[row, column, 3]`: a film, grey 0..1, with the outlines of the structures in their colours."""
    import cv2

    picture = np.repeat((np.clip(grey, 0, 1) * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2).copy()
    for mask, colour in zip(masks, COLOURS, strict=True):
        lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour, 1)
    return picture


def _spaced(entries: Sequence[Entry], count: int) -> list[Entry]:
    """At most `count` of them, evenly spaced."""
    return [entries[k] for k in np.unique(np.linspace(0, len(entries) - 1, count).astype(int))] if entries else []
