"""Chest films as the trainers want them: one isotropic spacing, one canvas, each film's own grey range.

Input format (a site can make it from its own films): a folder with `index.csv` and the pictures, in it or in
`images/`. Columns of index.csv: `image` (file name; 8 or 16-bit grey PNG, TIFF or JPEG 2000), `patient_id`, and the
true size in mm as `orig_width`, `orig_height` (pixels of the detector image) and `orig_spacing_x_mm`,
`orig_spacing_y_mm`; `sex` (F, M) if known. The picture itself may be squeezed to any size: it is resampled to
`spacing_mm` by its true size. One patient's films all fall on the same side of the split.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.errors import HiResMedSynthError, ReadError

NEEDED = ("image", "patient_id", "orig_width", "orig_height", "orig_spacing_x_mm", "orig_spacing_y_mm")
SEXES = {"F": 1, "M": 2}
HELD_OUT_PART = (7, 2)  # modulus and part of the hash; holds NIH patient 2, whose film is also the tests' film


@dataclass(frozen=True, kw_only=True)
class Film:
    """One film of the set: its name, patient, class (0 unknown, 1 F, 2 M), side of the split, and place on the canvas.

    `field` is (top, left, rows, columns) in canvas pixels: what is film and not padding.
    """

    name: str
    patient: str
    label: int
    held_out: bool
    field: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class FilmSet:
    """Films on equal canvases.

    `pixels` is [film, row, column], float32 in -1..1 (0.5 and 99.5 percentile of each field), the padding filled with
    the nearest film pixel so that nothing rings at the border.
    """

    pixels: NDArray[np.float32]
    films: tuple[Film, ...]
    spacing_mm: float

    def masks(self) -> NDArray[np.bool_]:
        """[film, row, column], True inside the field."""
        masks = np.zeros(self.pixels.shape, dtype=bool)
        for mask, film in zip(masks, self.films, strict=True):
            top, left, rows, columns = film.field
            mask[top : top + rows, left : left + columns] = True
        return masks

    def side(self, *, held_out: bool) -> list[int]:
        """Indices of the training films, or of those held out."""
        return [index for index, film in enumerate(self.films) if film.held_out == held_out]


def is_held_out(patient: str) -> bool:
    """Whether a patient is held out: one of seven parts by the SHA-256 of the id, the same on every machine."""
    return int(hashlib.sha256(patient.encode()).hexdigest(), 16) % HELD_OUT_PART[0] == HELD_OUT_PART[1]


def load_films(folder: Path, cache: Path, *, canvas_px: int, spacing_mm: float) -> FilmSet:
    """The films of a folder, prepared once and kept as float16 in `cache`.

    Raises:
        ReadError: no index.csv, a missing column, a damaged picture, or no patient on one side of the split.
    """
    index = folder / "index.csv"
    if not index.is_file():
        raise ReadError("The training folder has no index.csv", where=folder, remedy="See Training/film_data.py.")
    key = hashlib.sha256(f"{index.read_bytes()!r}{canvas_px}{spacing_mm}".encode()).hexdigest()[:16]
    pixels_file, list_file = cache / f"films-{key}.npy", cache / f"films-{key}.json"
    if not (pixels_file.is_file() and list_file.is_file()):
        cache.mkdir(parents=True, exist_ok=True)
        pixels, films = _prepare(folder, canvas_px=canvas_px, spacing_mm=spacing_mm)
        np.save(pixels_file, pixels.astype(np.float16))
        list_file.write_text(json.dumps([asdict(film) for film in films]), encoding="utf-8")
    listed: list[dict[str, Any]] = json.loads(list_file.read_text(encoding="utf-8"))
    films = tuple(Film(**{**entry, "field": tuple(entry["field"])}) for entry in listed)
    pixels = np.load(pixels_file, allow_pickle=False).astype(np.float32)
    return FilmSet(pixels=pixels, films=films, spacing_mm=spacing_mm)


def _prepare(folder: Path, *, canvas_px: int, spacing_mm: float) -> tuple[NDArray[np.float32], tuple[Film, ...]]:
    with (folder / "index.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    absent = [name for name in NEEDED if not rows or name not in rows[0]]
    if absent:
        raise ReadError(
            f"index.csv lacks {', '.join(absent)}",
            where=folder,
            remedy="Add the columns named in Training/film_data.py.",
        )
    prepared = [_film(folder, row, canvas_px=canvas_px, spacing_mm=spacing_mm) for row in rows]
    films = tuple(film for _, film in prepared)
    if len({film.held_out for film in films}) < 2:
        raise ReadError(
            "All patients fall on one side of the split",
            where=folder,
            remedy="Give films of more patients (16 or more).",
        )
    return np.stack([pixels for pixels, _ in prepared]), films


def _film(folder: Path, row: dict[str, str], *, canvas_px: int, spacing_mm: float) -> tuple[NDArray[np.float32], Film]:
    path = next((p for p in (folder / row["image"], folder / "images" / row["image"]) if p.is_file()), None)
    if path is None:
        raise ReadError(f"{row['image']} is listed but absent", where=folder, remedy="Remove its line or add the file.")
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture, dtype=np.float32)
        width = float(row["orig_width"]) * float(row["orig_spacing_x_mm"]) / spacing_mm
        height = float(row["orig_height"]) * float(row["orig_spacing_y_mm"]) / spacing_mm
    except (OSError, ValueError) as problem:
        raise ReadError(
            f"{row['image']} can't be read: {problem}", where=path, remedy="Replace or remove it."
        ) from None
    if grey.ndim != 2 or min(width, height) < 8:
        raise ReadError("The film is no grey picture of a possible size", where=path, remedy="Check its line and file.")
    shrink = min(1.0, canvas_px / max(width, height))
    if shrink < 0.9:
        click.echo(f"{row['image']}: {width:.0f}x{height:.0f} px don't fit {canvas_px}; shrunk", err=True)
    columns, lines = round(width * shrink), round(height * shrink)
    film = np.asarray(Image.fromarray(grey).resize((columns, lines), Image.Resampling.LANCZOS), dtype=np.float32)
    low, high = np.percentile(film, (0.5, 99.5))
    if not high > low:
        raise HiResMedSynthError("The film is blank", where=path, remedy="Remove its line from index.csv.")
    film = np.clip(2 * (film - low) / (high - low) - 1, -1, 1)
    top, left = (canvas_px - lines) // 2, (canvas_px - columns) // 2
    border = ((top, canvas_px - lines - top), (left, canvas_px - columns - left))
    patient = row["patient_id"]
    return np.pad(film, border, mode="edge"), Film(
        name=row["image"],
        patient=patient,
        label=SEXES.get(row.get("sex", ""), 0),
        held_out=is_held_out(patient),
        field=(top, left, lines, columns),
    )
