"""A folder of films as trainers read it (Training/film_data.py): pictures beside their index.csv."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.patient_split import held_out_by_rule
from Training.film_data import NEEDED

PEOPLE = [str(number) for number in range(100)]


def write_films(
    folder: Path,
    *,
    learned: int,
    picture: Callable[[int], NDArray[np.floating]],
    row: Callable[[int], dict[str, object]],
) -> Path:
    """The folder with a film each of two patients held out and of so many more.

    Args:
        folder: is there already.
        learned: patients that aren't held out.
        picture: grey values 0..255 of the film of that number, `[row, column]`.
        row: its columns of index.csv beside picture and patient.
    """
    held_out = [patient for patient in PEOPLE if held_out_by_rule(patient)][:2]
    patients = [*held_out, *[patient for patient in PEOPLE if not held_out_by_rule(patient)][:learned]]
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as lines:
        table = csv.DictWriter(lines, dict.fromkeys([*NEEDED, *row(0)]))
        table.writeheader()
        for number, patient in enumerate(patients):
            Image.fromarray(picture(number).clip(0, 255).astype(np.uint8)).save(folder / f"{patient}.png")
            table.writerow({"image": f"{patient}.png", "patient_id": patient, **row(number)})
    return folder


def lungs(middle: float) -> NDArray[np.float64]:
    """`[96, 96]` of a chest: two dark lungs, the left one of the picture at that share of the width."""
    row, column = np.mgrid[0:96, 0:96] / 95
    both = np.exp(-(((column - middle) / 0.13) ** 2)) + np.exp(-(((column - 0.7) / 0.13) ** 2))
    return np.asarray(180 - 130 * both * np.sin(np.pi * row))


def size(width: int, height: int, spacing_mm: float) -> dict[str, object]:
    """The index's columns of the original film: pixels, and mm a pixel both ways."""
    return {
        "orig_width": width, "orig_height": height, "orig_spacing_x_mm": spacing_mm, "orig_spacing_y_mm": spacing_mm
    }  # fmt: skip
