"""What the 2-D machine reader found, as rows of a table, and a sheet of where it looked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.evaluation.picture_reader import PictureReading, picture_reader

HEAD = "| against | n | AUC (95 %) | right of a pair (95 %) |\n| --- | --- | --- | --- |"
TOLD = 0.65  # from this AUC on it is asked where it looked
SEED = 0
BLUR_PX = 1.5  # of the saliency
COLUMNS, SHOWN = 8, 12


def row(title: str, found: PictureReading) -> str:
    """AUC, and how often it chose rightly between the two pictures of a pair, with 95 % intervals."""
    reading = found.reading
    low, high = reading.interval()
    cells = [
        title,
        f"{len(reading.wins)} + {len(reading.wins[0])}",
        f"{reading.auc:.2f} ({low:.2f} to {high:.2f})",
    ]
    return f"| {' | '.join([*cells, _pairs(found)])} |"


def _pairs(found: PictureReading) -> str:
    """Share of pairs (same place, number k of either class) told rightly; bootstrap of patients."""
    reading = found.reading
    if len(reading.groups_real) != len(reading.groups_fake) or (reading.groups_real != reading.groups_fake).any():
        return "-"
    own = np.diag(reading.wins)
    _, index = np.unique(reading.groups_real, return_inverse=True)
    count = int(index.max()) + 1
    sums, sizes = np.bincount(index, own), np.bincount(index)
    drawn = np.random.default_rng(SEED).integers(count, size=(2000, count))
    low, high = np.percentile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [2.5, 97.5])
    return f"{own.mean():.2f} ({low:.2f} to {high:.2f})"


def control(real: NDArray[np.float32], patients: NDArray[np.str_], *, epochs: int) -> str:
    """The row of real against real: half of the patients against the others."""
    names = np.random.default_rng(SEED).permutation(np.unique(patients))
    first = np.isin(patients, names[: len(names) // 2])
    found = picture_reader(real[first], real[~first], patients[first], patients[~first], SEED, epochs=epochs)
    return row("real, other real", found)


def where_it_looked(real: NDArray[np.float32], made: NDArray[np.float32], found: PictureReading, file: Path) -> None:
    """Writes a sheet: columns are the pairs told most surely; rows real, its saliency, composed, its saliency."""
    import cv2

    count = len(real)
    sure = np.argsort(found.scores[count:] - found.scores[:count])[:COLUMNS]
    rows = []
    for pictures, maps in ((real, found.saliency[:count]), (made, found.saliency[count:])):
        grey = (np.clip((pictures[sure] + 1) / 2, 0, 1) * 255).astype(np.uint8)
        heat = np.stack([gaussian_filter(one, BLUR_PX) for one in maps[sure]])
        heat = (heat / heat.max(axis=(1, 2), keepdims=True) * 255).astype(np.uint8)
        rows += [np.hstack(list(grey)), np.hstack(list(heat))]
    sheet = cv2.resize(np.vstack(rows), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    part = file.with_name("part-" + file.name)
    cv2.imwrite(str(part), sheet // 8 * 8, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    part.replace(file)


def sheet(ways: dict[str, NDArray[np.float32]], file: Path) -> None:
    """Writes a sheet: a way a row, every so-manyth pair a column, none chosen."""
    import cv2

    count = len(next(iter(ways.values())))
    shown = np.arange(0, count, max(count // SHOWN, 1))[:SHOWN]
    rows = [np.hstack([np.pad(one, ((0, 1), (0, 1)), constant_values=-1) for one in ways[way][shown]]) for way in ways]
    grey = (np.clip((np.vstack(rows) + 1) / 2, 0, 1) * 255).astype(np.uint8)
    large = cv2.resize(grey, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    part = file.with_name("part-" + file.name)
    cv2.imwrite(str(part), large, [cv2.IMWRITE_JPEG_QUALITY, 60])
    part.replace(file)
