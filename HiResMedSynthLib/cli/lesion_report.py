"""The report that `lesion train` leaves: what each scale of the network learned, and samples beside the lesion."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from HiResMedSynthLib.training_report import Curve, Plot, write_training_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from HiResMedSynthLib.weights import Card

ZOOM, SHOWN = 4, 9
WORDS = (
    "A network of one lesion has no held-out side. Measured is how exactly it gives its lesion back, and how near its "
    "samples lie to it (Dice of the masks; 1 is a copy).",
    "A curve a scale, coarsest first; each begins anew. A critic whose gap stays at 0 taught nothing.",
)
COLUMNS = ("scale", "voxels_a_side", "iterations", "first_rmse", "last_rmse", "critics_gap")
Scales = list[list[dict[str, Any]]]
"""The lines of a run's log, those of a scale together, coarsest first."""


def write_lesion_report(folder: Path, card: Card, scales: Scales, values: Sequence[NDArray[np.floating]]) -> Path:
    """Path of the HTML report, written into the folder.

    Args:
        folder: for report.html and report.json.
        card: of the model.
        scales: what `read_scales` gave.
        values: the lesion and then samples, each `[2, (slice,) row, column]` as the network has them.

    Raises:
        OSError: it can't be written.
    """
    table = [
        (one[0]["scale"] + 1, one[0]["side"], one[-1]["iteration"], one[0]["rec_rmse"], one[-1]["rec_rmse"], gap)
        for one, gap in zip(scales, gaps(scales), strict=True)
    ]
    description = {"name": card.name, "data": card.data, "seed": card.seed, **card.details, **card.metrics}
    return write_training_report(
        folder,
        title=f"Training of the lesion {card.name}",
        summary={"description": description, "scales": [dict(zip(COLUMNS, row, strict=True)) for row in table]},
        plots=[
            Plot(title=title, along="iteration", curves=_curves(scales, name, words))
            for title, words, name in (
                ("Reconstruction", "RMSE of the lesion given back, in the network's units", "rec_rmse"),
                ("Critic", "size of the gap between its answers to the lesion and to samples", "gap"),
            )
        ],
        table=[[name.replace("_", " ") for name in COLUMNS], *table],
        words=(card.limits, *WORDS),
        picture=_picture(values[:SHOWN]),
        caption=f"The lesion (left) and {len(values[:SHOWN]) - 1} samples; middle slice, lung window.",
    )


def _curves(scales: Scales, name: str, words: str) -> list[Curve]:
    """The sizes of the log's numbers of that name, a curve a scale, one scale after the other."""
    curves, passed = list[Curve](), 0
    for entries in scales:
        points = [(passed + entry["iteration"], abs(entry[name])) for entry in entries]
        curves.append(Curve(words="" if curves else words, colour="#06c", points=points))
        passed += entries[-1]["iteration"]
    return curves


def read_scales(run: Path) -> Scales:
    """The log of the run in that folder; notes left out."""
    from HiResMedSynthLib.lesion.singan_train import LOG

    lines = [json.loads(line) for line in (run / LOG).read_text(encoding="utf-8").splitlines()]
    told = [line for line in lines if "gap" in line]
    return [list(entries) for _, entries in itertools.groupby(told, key=lambda line: line["scale"])]


def gaps(scales: Scales) -> list[float]:
    """Mean of the critic's gap at each scale: near 0 it taught nothing."""
    return [round(sum(entry["gap"] for entry in entries) / len(entries), 5) for entries in scales]


def _picture(values: Sequence[NDArray[np.floating]]) -> bytes:
    """PNG of the middle slices in a row, on flat lung."""
    import numpy as np
    from PIL import Image

    from HiResMedSynthLib.lesion.lesion_grid import LUNG_HU, UNIT_HU
    from HiResMedSynthLib.lesion.sheet import LUNG

    slices = [one[0] if one.ndim == 3 else one[0][one.shape[1] // 2] for one in values]
    grey = LUNG.to_unit(LUNG_HU + UNIT_HU * np.concatenate(slices, axis=1).astype(np.float32))
    tiles = Image.fromarray((grey * 255).astype(np.uint8))
    held = io.BytesIO()
    tiles.resize((tiles.width * ZOOM, tiles.height * ZOOM), Image.Resampling.BICUBIC).save(held, "PNG")
    return held.getvalue()
