"""Scores of the film network on films projected from CT volumes that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.network import PlacementNetwork
from HiResMedSynthLib.placement.regions_film import (
    LUNGS_ABOVE,
    STRUCTURES,
    FilmRegions,
    film_channels,
    find_film_regions,
)
from Testing.benchmarks.danger_film_scores import Trained, as_image, scores
from Training.danger_film_data import outlined, plain_projected
from Training.danger_film_looks import Look, apply_look
from Training.danger_film_structures import GRID_MM, HEART, LUNG, RIBS, SPINE_AT, LabelledVolume
from Training.projected_films import projected_films

VIEWS = 16
TILE = 200
PLAIN = Look(
    local=0.5, local_px=30, detail=0.5, gamma=1.0, curve=0.2, noise=(0.0, 1.0), clip=(0.0, 100.0), lines=0,
    letters=0, border=False, seed=0,
)  # fmt: skip


def projected(volume: LabelledVolume, trained: Trained, cache: Path | None) -> dict[str, Any]:
    """Dice and both error rates of every structure, medians over views of one patient."""
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STRUCTURES}
    extra: dict[str, list[float]] = {"mediastinum": [], "spine": [], "ribs beside the lungs": []}
    for film in projected_films(volume, VIEWS, seed=1, cache=cache):
        canvas, there, sure = plain_projected(film)
        picture = apply_look(canvas, PLAIN)[0]
        answer = answered(picture, trained.network)
        for number, name in enumerate(STRUCTURES):
            truth, counted = there[number] & sure[number], sure[number]
            if truth.sum() > 30:
                rows[name].append(scores(answer[number] > 0, truth, counted))
        if not film.chest:
            continue
        regions = FilmRegions(logits=answer, shape=picture.shape)
        lungs = regions.seen("lungs", above=LUNGS_ABOVE)
        permitted = lungs & ~regions.near_heart(lungs, (1.0, 1.0))
        for name, mask in (
            ("mediastinum", there[HEART] & sure[HEART]),
            ("spine", there[SPINE_AT] & sure[SPINE_AT] & ~there[LUNG]),
            ("ribs beside the lungs", there[RIBS] & ~there[LUNG] & sure[LUNG]),
        ):
            extra[name].append(float((permitted & mask).sum() / max(mask.sum(), 1)))
    table: dict[str, Any] = {
        name: [float(np.median([row[k] for row in found])) for k in range(3)] for name, found in rows.items() if found
    }
    table |= {f"map: {name} called permitted": float(np.median(v)) for name, v in extra.items() if v}
    return {"patient, views": f"{volume.patient}, {VIEWS}", **table}


def without_tumour(volume: LabelledVolume, folder: Path) -> LabelledVolume:
    """The volume with the boxes of `tumour_boxes.csv` taken off the mediastinum, which the rule takes them for."""
    import csv

    if not (folder / "tumour_boxes.csv").is_file():
        return volume
    masks = volume.masks.copy()
    with (folder / "tumour_boxes.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            last = 49  # the lowest slice is IM0049; slices of 5 mm, pixels of 0.841796875 mm
            low = round((last - int(row["instance_number"])) * 5 / GRID_MM)
            left, top, right, bottom = (
                round(float(row[k]) * 0.841796875 / GRID_MM) for k in ("xmin", "ymin", "xmax", "ymax")
            )
            masks[HEART, low : low + 3, top:bottom, left:right] = False
    return replace(volume, masks=masks)


def answered(picture: NDArray[np.float32], network: PlacementNetwork) -> NDArray[np.float32]:
    """Logits of a canvas, the mean with those of its mirror image."""
    channels = film_channels(picture)
    right, left = network.logits(np.stack([channels, channels[:, :, ::-1]]))
    return np.asarray((right + left[:, :, ::-1]) / 2, dtype=np.float32)


def spine_of_kub(volume: LabelledVolume, trained: Trained) -> dict[str, float]:
    """The spine of the abdominal film as it lies: rule and network (which saw spines of chests only)."""
    from HiResMedSynthLib.placement.rule_kub import danger_kub
    from Training.projected_films import PIXEL_MM, STILL, Projector

    film = Projector(volume).seen(STILL)
    there, sure = film.targets()
    stored = np.clip(film.integral * 100, 0, 65535).astype(np.uint16)
    image = as_image(stored, (PIXEL_MM, PIXEL_MM))
    rule = danger_kub(image, margins=Margins()).labels[0] == 2
    regions = find_film_regions(image, trained.network)
    above = np.flatnonzero(there[SPINE_AT].any(axis=1))
    rows = slice(0, int(above[-1]) + 1)
    truth, counted = there[SPINE_AT][rows], sure[SPINE_AT][rows]
    table = {}
    for name, mask in (("rule", rule), ("network", regions.seen("spine")), ("both", rule | regions.seen("spine"))):
        table |= dict(
            zip(
                (f"{name}: Dice", f"{name}: spine called permitted", f"{name}: other called spine"),
                (lambda s: (s[0], s[2], s[1]))(scores(mask[rows], truth, counted)),
                strict=True,
            )
        )
    return table


def structures_seen(volume: LabelledVolume, trained: Trained, cache: Path | None) -> list[NDArray[np.uint8]]:
    """Two projected films of a patient not trained on, with the outlines of every structure that the network finds."""
    import cv2

    tiles = []
    for film in projected_films(volume, VIEWS, seed=1, cache=cache)[:2]:
        seen = apply_look(plain_projected(film)[0], PLAIN)[0]
        answer = answered(seen, trained.network)
        layers = np.stack([cv2.resize(layer, (TILE, TILE)) > 0 for layer in answer])
        tiles.append(outlined(cv2.resize(seen, (TILE, TILE)), layers))
    return tiles
