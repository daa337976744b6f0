"""Chest and abdominal films projected from labelled CT volumes: a patient stands, breathes and is built a little
otherwise each time; line integrals of soft tissue and bone, and the thickness of every structure along the rays.

Rays diverge as from a tube in front of or behind the patient. Unlike `HiResMedSynthLib.project` (one view as it is),
this is training material: every view is drawn (`draw_view`), then made (`project_view`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.placement.regions_film import STRUCTURES
from Training.danger_film_structures import (
    BONE_HU,
    GRID_MM,
    HEART,
    LUNG,
    PELVIS_AT,
    RIBS,
    SPINE_AT,
    LabelledVolume,
)

PIXEL_MM = 1.6
RAY_STEP_MM = 3.0
CONTROL_POINTS = 5
CONTRAST_HU, CONTRAST_LEFT = 80.0, 0.2  # what is left of the density of contrast medium above ordinary blood
HEART_SIGMA_MM = 45.0
EDGE_MM = 18.0  # rows near the end of what is known: the rays are oblique
LUNG_SHARE = 0.5  # of its greatest thickness: less is the recess behind the dome, or lung behind the heart
# thickness in mm: from the second on a structure is there, below the first it is not, between them nobody is sure
THICKNESS_MM = ((10.0, 30.0), (8.0, 22.0), (0.8, 3.0), (3.0, 9.0), (2.0, 6.0), (0.5, 2.0), (3.0, 15.0))


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """How a patient stands before the tube.

    Args:
        turn: radians about the (left-right, front-back, long) axis.
        size: magnification along (slice, row, column).
        divergence_per_mm: change of magnification by depth; its sign says on which side the tube stands.
        elastic_mm: `[3, 5, 5, 5]` control points of the displacement.
        heart: magnification of the heart.
        air: density of the lungs against what they were.
        bone: density of bone above soft tissue against what it was: energy of the rays, age of the patient.
    """

    turn: tuple[float, float, float]
    size: tuple[float, float, float]
    divergence_per_mm: float
    elastic_mm: NDArray[np.float32]
    heart: float
    air: float
    bone: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ProjectedFilm:
    """A projected film: rows from head to feet, the patient's right at the left, pixels of 1.6 mm.

    Args:
        integral: float32 `[row, column]`, mu * mm / mu of water, in mm of water.
        thickness_mm: float32 `[structure, row, column]`.
        known: bool `[structure, row]`.
        patient: for the split.
        chest: a whole chest is in it.
    """

    integral: NDArray[np.float32]
    thickness_mm: NDArray[np.float32]
    known: NDArray[np.bool_]
    patient: str
    chest: bool

    def targets(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(there, sure), bool `[structure, row, column]`: whether a structure is seen, and whether that is known."""
        low, high = (np.array(column, dtype=np.float32)[:, None, None] for column in zip(*THICKNESS_MM, strict=True))
        there = self.thickness_mm >= high
        lungs = self.thickness_mm[LUNG]
        if there[LUNG].any():  # what shines through the dome is lung to some readers and not to others
            there[LUNG] &= lungs >= LUNG_SHARE * np.percentile(lungs[there[LUNG]], 90)
        sure = (there | (self.thickness_mm < low)) & self.known[:, :, None]
        return there, sure


STILL = View(
    turn=(0, 0, 0), size=(1, 1, 1), divergence_per_mm=0.0, heart=1.0, air=1.0, bone=1.0,
    elastic_mm=np.zeros((3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS), np.float32),
)  # fmt: skip


def draw_view(rng: np.random.Generator) -> View:
    """Positions that radiographers know: turned to 10 degrees, tilted to 12, another build, heart, breath and age."""
    tall, deep, wide = np.exp(rng.normal(0, 0.08, 3))
    return View(
        turn=(np.deg2rad(rng.uniform(-12, 12)), np.deg2rad(rng.uniform(-5, 5)), np.deg2rad(rng.uniform(-10, 10))),
        size=(float(tall), float(deep), float(wide)),
        divergence_per_mm=float(rng.choice([-1, 1]) * rng.uniform(0.3, 1.0) / 1000),
        elastic_mm=rng.normal(0, 7, (3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS)).astype(np.float32),
        heart=float(rng.uniform(0.85, 1.3)),
        air=float(np.exp(rng.uniform(np.log(0.6), np.log(2.0)))),
        bone=float(np.exp(rng.uniform(np.log(0.6), np.log(1.8)))),
    )


class Projector:
    """One volume, ready to be seen from anywhere."""

    def __init__(self, volume: LabelledVolume) -> None:
        self.volume = volume
        bone = volume.masks[[RIBS, SPINE_AT, PELVIS_AT]].any(axis=0)
        hu = volume.hu
        soft = np.where(bone, np.minimum(hu, BONE_HU), hu)
        dyed = ~bone & (soft > CONTRAST_HU)
        soft = np.where(dyed, CONTRAST_HU + CONTRAST_LEFT * (soft - CONTRAST_HU), soft)
        density = np.maximum(soft / 1000 + 1, 0)
        lungs = volume.masks[LUNG]
        layers = [np.where(lungs, 0, density), np.where(lungs, density, 0), np.where(bone, hu / 1000 + 1 - density, 0)]
        stack = np.concatenate([np.stack(layers), volume.masks]).astype(np.float32)
        self.stack = torch.from_numpy(stack)[None]  # [1, 3 + structures, slice, row, column]
        self.middle_mm = [n * GRID_MM / 2 for n in hu.shape]
        heart = np.argwhere(volume.masks[HEART])
        self.heart_mm = None if len(heart) < 1000 else (heart.mean(axis=0) + 0.5) * GRID_MM - self.middle_mm

    def seen(self, view: View) -> ProjectedFilm:
        """The film of one view."""
        height, depth, width = (2 * middle for middle in self.middle_mm)
        rows, steps, columns = round(height / PIXEL_MM), round(depth / RAY_STEP_MM), round(width / PIXEL_MM)
        z = (torch.arange(rows).flip(0) + 0.5) * height / rows - self.middle_mm[0]
        y = (torch.arange(steps) + 0.5) * depth / steps - self.middle_mm[1]
        x = (torch.arange(columns) + 0.5) * width / columns - self.middle_mm[2]
        at = torch.stack(torch.meshgrid(z, y, x, indexing="ij"))  # [3, row, step, column] mm from the middle
        spread = 1 + view.divergence_per_mm * at[1]
        at = torch.stack([at[0] * spread, at[1], at[2] * spread])
        turn = torch.from_numpy(_rotation(view.turn).astype(np.float32))
        at = torch.einsum("ij,jrsc->irsc", turn, at) / torch.tensor(view.size)[:, None, None, None]
        elastic = torch.from_numpy(view.elastic_mm)[None]
        at = at + torch.nn.functional.interpolate(elastic, at.shape[1:], mode="trilinear", align_corners=True)[0]
        if self.heart_mm is not None:
            away = at - torch.tensor(self.heart_mm, dtype=torch.float32)[:, None, None, None]
            near = torch.exp(-(away**2).sum(dim=0) / (2 * HEART_SIGMA_MM**2))
            at = at + away * (1 / view.heart - 1) * near
        scale = torch.tensor(self.middle_mm, dtype=torch.float32)[:, None, None, None]
        grid = (at / scale).flip(0).permute(1, 2, 3, 0)[None]  # (column, row, slice) in -1..1, as torch wants
        found = (
            torch.nn.functional.grid_sample(self.stack, grid, padding_mode="border", align_corners=False)[0].sum(dim=2)
            * RAY_STEP_MM
        )
        tissue, air, bone = found[:3]
        return ProjectedFilm(
            integral=(tissue + view.air * air + view.bone * bone).numpy(),
            thickness_mm=found[3:].numpy(),
            known=self._known(rows),
            patient=self.volume.patient,
            chest=bool(self.volume.masks[LUNG].any()),
        )

    def _known(self, rows: int) -> NDArray[np.bool_]:
        """bool `[structure, row]`: the slice's knowledge, and that of slices within 2 cm."""
        from scipy.ndimage import minimum_filter1d

        reach = 2 * round(EDGE_MM / GRID_MM) + 1
        safe = minimum_filter1d(self.volume.known.astype(np.uint8), reach, axis=1, mode="nearest") > 0
        from_top = np.minimum((np.arange(rows) + 0.5) / rows * safe.shape[1], safe.shape[1] - 1).astype(int)
        return np.asarray(safe[:, ::-1][:, from_top])


def projected_films(volume: LabelledVolume, count: int, *, seed: int, cache: Path | None = None) -> list[ProjectedFilm]:
    """The film of the volume as it lies and `count - 1` drawn views of it, kept in `cache` if given."""
    kept = cache / f"projected-{_key(volume, count, seed)}.npz" if cache is not None else None
    if kept is not None and kept.is_file():
        return _stored(kept, volume)
    projector = Projector(volume)
    rng = np.random.default_rng([seed, *volume.patient.encode()])
    films = [projector.seen(STILL if k == 0 else draw_view(rng)) for k in range(count)]
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(kept) as aside, aside.open("wb") as stream:
            np.savez_compressed(
                stream,
                integral=np.stack([film.integral for film in films]).astype(np.float16),
                thickness_mm=np.stack([film.thickness_mm for film in films]).astype(np.float16),
                known=films[0].known,
            )
    return films


def _key(volume: LabelledVolume, count: int, seed: int) -> str:
    """Names what the films were made from: another volume under the same patient's name has others."""
    digest = hashlib.sha256(f"{volume.patient}{count}{seed}{STRUCTURES}{volume.hu.shape}".encode())
    for array in (volume.hu, volume.masks, volume.known):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def _stored(kept: Path, volume: LabelledVolume) -> list[ProjectedFilm]:
    with np.load(kept, allow_pickle=False) as stored:
        integral, thickness, known = stored["integral"], stored["thickness_mm"], stored["known"]
    chest = bool(volume.masks[LUNG].any())
    return [
        ProjectedFilm(
            integral=i.astype(np.float32), thickness_mm=t.astype(np.float32), known=known, patient=volume.patient,
            chest=chest,
        )
        for i, t in zip(integral, thickness, strict=True)
    ]  # fmt: skip


def _rotation(turn: Sequence[float]) -> NDArray[np.float64]:
    """The matrix that turns (slice, row, column) about the left-right, front-back and long axis."""
    tilt, lean, twist = turn
    about_columns = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    about_rows = np.array([[np.cos(lean), 0, -np.sin(lean)], [0, 1, 0], [np.sin(lean), 0, np.cos(lean)]])
    about_slices = np.array([[1, 0, 0], [0, np.cos(twist), -np.sin(twist)], [0, np.sin(twist), np.cos(twist)]])
    return np.asarray(about_columns @ about_rows @ about_slices)
