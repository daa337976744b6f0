"""Builds prior_data/cxr_lung_template.npz: mean film, mean lungs and lung boxes of the Hannover films with masks."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.placement.lungs_cxr import (
    AROUND_BOX,
    SHAPE_PX,
    TEMPLATE_PX,
    WORK_PX,
    LungTemplate,
    cut,
    normalised,
)

BOX_NOISE_PX = 5.0  # spread of a drawn lung box, added to the spread between people
IGNORED = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedFilm:
    """A film with its lung mask (1 and 2 = lung, 3 = not to be counted), both 1024x1024."""

    film: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    patient_id: str
    view: str


def read_masked_films(hannover: Path) -> list[MaskedFilm]:
    """The films of cxr_hannover that have a lung mask."""
    from PIL import Image

    with (hannover / "index.csv").open(encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["lung_mask"]]
    return [
        MaskedFilm(
            film=np.asarray(Image.open(hannover / row["file"])),
            mask=np.asarray(Image.open(hannover / row["lung_mask"])),
            patient_id=row["patient_id"],
            view=row["view"],
        )
        for row in rows
    ]


def build_template(films: Sequence[MaskedFilm], shapes: NDArray[np.bool_]) -> LungTemplate:
    """The template of these films; the lung shape is the mean of `shapes` `[person, row, column]`."""
    import cv2

    parts, boxes = [], []
    for film in films:
        small = cv2.resize(film.film.astype(np.float32), (WORK_PX, WORK_PX), interpolation=cv2.INTER_AREA)
        box = box_of(np.isin(film.mask, (1, 2))) * (WORK_PX / film.mask.shape[0])
        parts.append(cut(normalised(small), box, size_px=TEMPLATE_PX, around=AROUND_BOX))
        boxes.append(box - WORK_PX / 2)
    weight = (1 / (np.var(parts, axis=0) + 0.15)).astype(np.float32)
    mean = np.mean(parts, axis=0)
    mean = mean - (weight * mean).sum() / weight.sum()
    appearance = (mean / np.sqrt((weight * mean * mean).sum())).astype(np.float32)
    lungs = np.mean([cut(s.astype(np.float32), box_of(s), size_px=SHAPE_PX, around=0.0) for s in shapes], axis=0)
    return LungTemplate(
        appearance=appearance,
        weight=weight,
        lungs=lungs.astype(np.float32),
        box_mean=np.mean(boxes, axis=0),
        box_precision=np.linalg.inv(np.cov(np.transpose(boxes)) + BOX_NOISE_PX**2 * np.eye(4)),
    )


def box_of(mask: NDArray[Any]) -> NDArray[np.float64]:
    """(top, bottom, left, right) of a mask `[row, column]`."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1], dtype=np.float64)


def read_shapes(folder: Path) -> NDArray[np.bool_]:
    """Both lungs of the adults of cxr_anatomy_masks (radiologists' outlines), bool `[person, 256, 256]`."""
    bits = np.load(folder / "covid_cxr_bitmasks_256.npz", allow_pickle=False)["masks"]
    both = [(person & 1).any() and (person & 2).any() for person in bits]
    return np.asarray((bits[both] & 3) > 0)


@click.command()
@click.argument("shared_data", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The .npz to write.")
def main(shared_data: Path, out: Path) -> None:
    """Builds the template from cxr_hannover and cxr_anatomy_masks in SHARED_DATA."""
    template = build_template(
        read_masked_films(shared_data / "cxr_hannover"), read_shapes(shared_data / "cxr_anatomy_masks")
    )
    np.savez_compressed(
        out,
        appearance=template.appearance.astype(np.float16),
        weight=template.weight.astype(np.float16),
        lungs=template.lungs.astype(np.float16),
        box_mean=template.box_mean,
        box_precision=template.box_precision,
    )


if __name__ == "__main__":
    main()
