"""Picture sheets of an evaluation: real beside synthetic, nearest real, pairs with their difference, zoomed lesions.

In the manner of the paper's Figures 3 to 7. Every picture is seen as it was measured: same window, same size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.evaluation.comparable import Grid, PictureFacts
from HiResMedSynthLib.evaluation.evaluate_sets import Evaluation
from HiResMedSynthLib.evaluation.image_sets import Picture, Source, evenly, read_source
from HiResMedSynthLib.evaluation.pairs import lesions_on, picture_of, picture_pairs

TILE, GAP, ACROSS = 232, 4, 6
MOST_PAIRS, MOST_LESIONS = 4, 12
ZOOM_PX = 64  # of the picture, shown as a tile
GAIN = 4  # of difference maps: 0 is mid grey, a difference of an eighth of the range white or black
OUTLINE = (255, 190, 60)
PAIRS = (
    f"Pairs, one a row: real, synthetic with its lesions outlined, synthetic minus real (grey = equal, gain {GAIN}); "
    "where lesions are marked, the largest one zoomed, real and synthetic."
)
Tile = NDArray[np.uint8]
Grey = NDArray[np.float32]


def sheets(found: Evaluation) -> list[tuple[str, Tile]]:
    """(what it shows, uint8 `[row, column, 3]`) of each sheet that there is something for."""
    most, grid = found.settings.slices, found.grid

    def row(side: Sequence[PictureFacts], chosen: Sequence[int]) -> list[Tile]:
        return [_tile(grid.values(picture_of(side[k], most=most).image)) for k in chosen]

    real, made = found.real.facts, found.synthetic.facts
    shown = evenly(len(made), ACROSS)
    synthetic = row(made, shown)
    result = [
        (
            "Above real, below synthetic images, evenly chosen from each side.",
            _sheet([row(real, evenly(len(real), ACROSS)), synthetic]),
        ),
        (
            "Above synthetic images, below the real image nearest to each in features.",
            _sheet([synthetic, row(real, [int(found.nearest[k]) for k in shown])]),
        ),
    ]
    if found.plans:
        result.append((PAIRS, _sheet(_pair_rows(found))))
    for name, side in (("Real", real), ("Synthetic", made)):
        tiles = _lesions(side, grid)
        if tiles:
            what = f"{name} lesions, {ZOOM_PX} pixels across, each in the slice that holds most of it."
            result.append((what, _sheet([tiles[k : k + ACROSS] for k in range(0, len(tiles), ACROSS)])))
    return result


def _pair_rows(found: Evaluation) -> list[list[Tile]]:
    rows = []
    for index in evenly(len(found.plans), MOST_PAIRS):
        picture, reference = picture_pairs(found.plans[index], most=1)[0]
        one, other = found.grid.values(reference.image), found.grid.values(picture.image)
        inside = lesions_on(picture, found.grid)
        tiles = [_tile(one), _outlined(_tile(other), inside), _tile(0.5 + GAIN * (other - one))]
        if inside is not None:
            centre = _middle(inside)
            tiles += [_zoom(one, centre), _zoom(other, centre)]
        rows.append(tiles)
    return rows


def _lesions(side: Sequence[PictureFacts], grid: Grid) -> list[Tile]:
    """The largest lesion of each of some sources of a side, evenly chosen, zoomed."""
    sources: list[Source] = list({one.source.name: one.source for one in side if one.lesions}.values())
    tiles: list[Tile] = []
    for index in evenly(len(sources), MOST_LESIONS) if sources else ():
        loaded = read_source(sources[index])
        if loaded.lesions is None or not loaded.lesions.any():
            continue
        number = int(np.bincount(loaded.lesions[loaded.lesions > 0]).argmax())
        k = int((loaded.lesions == number).sum(axis=(1, 2)).argmax())
        plane = np.where(loaded.lesions[k] == number, loaded.lesions[k], 0).astype(np.uint16)
        picture = Picture(name="", group="", image=loaded.image.single_slice(k), lesions=plane)
        inside = lesions_on(picture, grid)
        if inside is not None:
            tiles.append(_zoom(grid.values(picture.image), _middle(inside)))
    return tiles


def _middle(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Centre of the largest piece of a mask."""
    from scipy.ndimage import label

    pieces, count = label(inside)
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel(), minlength=count + 1)[1:])) if count else 0
    row, column = np.argwhere(pieces == largest).mean(axis=0)
    return round(float(row)), round(float(column))


def _zoom(unit: Grey, centre: tuple[int, int]) -> Tile:
    half = ZOOM_PX // 2
    padded = np.pad(unit, half, mode="edge")
    row, column = centre
    return _tile(padded[row : row + ZOOM_PX, column : column + ZOOM_PX])


def _tile(unit: Grey) -> Tile:
    """uint8 `[TILE, TILE, 3]`, aspect kept, on black."""
    import cv2

    scale = TILE / max(unit.shape)
    size = max(round(unit.shape[1] * scale), 1), max(round(unit.shape[0] * scale), 1)
    grey = (np.clip(unit, 0, 1) * 255).astype(np.uint8)
    small = cv2.resize(grey, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = np.zeros((TILE, TILE), dtype=np.uint8)
    top, left = (TILE - size[1]) // 2, (TILE - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = small
    return np.repeat(tile[..., np.newaxis], 3, axis=2)


def _outlined(tile: Tile, inside: NDArray[np.bool_] | None) -> Tile:
    import cv2

    if inside is None:
        return tile
    drawn = _tile(inside.astype(np.float32))[..., 0]
    contours, _ = cv2.findContours((drawn > 64).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        (x, y), radius = cv2.minEnclosingCircle(contour)
        cv2.circle(tile, (round(x), round(y)), max(round(radius) + 3, 5), OUTLINE, 1, cv2.LINE_AA)
    return tile


def _sheet(rows: Sequence[Sequence[Tile]]) -> Tile:
    across = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (TILE + GAP) + GAP, across * (TILE + GAP) + GAP, 3), 20, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            top, left = GAP + i * (TILE + GAP), GAP + j * (TILE + GAP)
            sheet[top : top + TILE, left : left + TILE] = tile
    return sheet
