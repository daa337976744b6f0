"""Chest films as the trainers want them: one isotropic spacing, one canvas, each film's own grey range.

Input format (a site can make it from its own films), one of two:

- a folder with `index.csv` and the pictures, in it or in `images/`. Columns of index.csv: `image` (file name; 8 or
  16-bit grey PNG, TIFF or JPEG 2000), `patient_id`, and the true size in mm as `orig_width`, `orig_height` (pixels of
  the detector image) and `orig_spacing_x_mm`, `orig_spacing_y_mm`; `sex` (F, M) if known. The picture itself may be
  squeezed to any size: it is resampled to `spacing_mm` by its true size. Empty spacing cells: spacing unknown.
- a folder of DICOM radiographs, of any depth, without index.csv: frontal chest films of modality CR, DX, RG or OT
  (secondary captures), for presentation. Lateral views, other body parts and other modalities are left out. Spacing is
  Pixel Spacing, else Imager Pixel Spacing; patient and sex are the header's; MONOCHROME1 is inverted.

Sizes may differ. One patient's films all fall on the same side of the split. Damaged files are named and left out.
Prepared films are kept in `cache` with their patients' ids: keep it where the films may lie.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib.bounding_box import bounding_box
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.patient_split import held_out_by_rule
from Training.folder_of_images import FORMATS, DicomFile, dicom_files, files_below, identity, tell_damaged

NEEDED = ("image", "patient_id", "orig_width", "orig_height", "orig_spacing_x_mm", "orig_spacing_y_mm")
SEXES = {"F": 1, "M": 2}
FILM_MODALITIES = ("CR", "DX", "RG", "OT", "SC")
SIDE_VIEWS = ("LL", "RL", "LLD", "RLD", "LLO", "RLO", "LATERAL", "LAT")  # DICOM view positions that aren't frontal
CHEST = ("CHEST", "THORAX", "LUNG", "CHESTABDPELVIS", "CHESTABDOMEN", "PORT CHEST", "")  # "": not said


@dataclass(frozen=True, kw_only=True)
class Film:
    """One image of the set: its name, patient, class (0 unknown, 1 F, 2 M), side of the split, and place on the canvas.

    `field` is (top, left, rows, columns) in canvas pixels: what is film and not padding. `whole` is False where the
    pixel spacing is unknown: good for detail on crops, not for learning how large a chest is. `spacing_mm` is the
    image's own where images of the set differ (CT slices), else None.
    """

    name: str
    patient: str
    label: int
    held_out: bool
    field: tuple[int, int, int, int]
    whole: bool = True
    spacing_mm: float | None = None


@dataclass(frozen=True, kw_only=True)
class FilmSet:
    """Films on equal canvases.

    `pixels` is [film, row, column], float32 in -1..1 (0.5 and 99.5 percentile of each field), the padding filled with
    the nearest film pixel so that nothing rings at the border. `inside` (same shape) replaces the fields as the mask
    where what counts is no rectangle. `spacing_mm` is that of the whole films (the median where they differ).
    """

    pixels: NDArray[np.float32]
    films: tuple[Film, ...]
    spacing_mm: float
    inside: NDArray[np.bool_] | None = None

    def masks(self) -> NDArray[np.bool_]:
        """[film, row, column], True inside the field."""
        if self.inside is not None:
            return self.inside
        masks = np.zeros(self.pixels.shape, dtype=bool)
        for mask, film in zip(masks, self.films, strict=True):
            top, left, rows, columns = film.field
            mask[top : top + rows, left : left + columns] = True
        return masks

    def side(self, *, held_out: bool) -> list[int]:
        """Indices of the training films, or of those held out."""
        return [index for index, film in enumerate(self.films) if film.held_out == held_out]


@dataclass(frozen=True, kw_only=True)
class RawFilm:
    """A film as read: grey [row, column] with bright = dense, and its true (height, width) in mm where known.

    `proportion` is true width / height where the size in mm is unknown.
    """

    path: Path
    name: str
    patient: str
    sex: str
    grey: NDArray[np.float32]
    size_mm: tuple[float, float] | None
    proportion: float


NO_WHOLE_FILM = "No film on one side of the split tells its pixel spacing: the others serve detail alone"
GIVE_SPACING = "Give films with a spacing (DICOM, or the columns of index.csv), of more patients."


def load_films(folder: Path, cache: Path, *, canvas_px: int, spacing_mm: float) -> FilmSet:
    """The films of a folder, prepared once and kept as float16 in `cache`.

    Raises:
        ReadError: neither index.csv nor DICOM films, a missing column, more than half of the files damaged, or no
            patient on one side of the split.
    """
    key = hashlib.sha256(f"{identity(folder)}{canvas_px}{spacing_mm}".encode()).hexdigest()[:16]
    pixels_file, list_file = cache / f"films-{key}.npy", cache / f"films-{key}.json"
    if not (pixels_file.is_file() and list_file.is_file()):
        pixels, films = _prepare(folder, canvas_px=canvas_px, spacing_mm=spacing_mm)
        cache.mkdir(parents=True, exist_ok=True)
        fresh = cache / f"{os.getpid()}-{pixels_file.name}"  # jobs side by side may share the cache
        np.save(fresh, pixels.astype(np.float16))
        fresh.replace(pixels_file)
        fresh = cache / f"{os.getpid()}-{list_file.name}"
        fresh.write_text(json.dumps([asdict(film) for film in films]), encoding="utf-8")
        fresh.replace(list_file)
    listed: list[dict[str, Any]] = json.loads(list_file.read_text(encoding="utf-8"))
    films = tuple(Film(**{**entry, "field": tuple(entry["field"])}) for entry in listed)
    pixels = np.load(pixels_file, allow_pickle=False).astype(np.float32)
    return FilmSet(pixels=pixels, films=films, spacing_mm=spacing_mm)


def _prepare(folder: Path, *, canvas_px: int, spacing_mm: float) -> tuple[NDArray[np.float32], tuple[Film, ...]]:
    damaged: list[Exception] = []
    prepared: list[tuple[NDArray[np.float32], Film]] = []
    readers = list(_listed(folder) if (folder / "index.csv").is_file() else _radiographs(folder, damaged))
    total = len(readers) + len(damaged)

    def one(read: Callable[[], RawFilm]) -> tuple[NDArray[np.float32], Film] | HiResMedSynthError:
        try:
            return _on_canvas(read(), canvas_px=canvas_px, spacing_mm=spacing_mm)
        except HiResMedSynthError as problem:
            return problem

    with ThreadPoolExecutor() as threads:  # reading pictures and resampling leave Python's lock
        for done in threads.map(one, readers):
            if isinstance(done, HiResMedSynthError):
                damaged.append(done)
            else:
                prepared.append(done)
    tell_damaged(damaged, total, folder)
    films = tuple(film for _, film in prepared)
    if len({film.held_out for film in films}) < 2:
        count = len({film.patient for film in films})
        whose = "one patient" if count == 1 else f"{count} patients, none or all of whom the rule holds out"
        raise ReadError(
            f"The films are of {whose}: some are to be learned from, others to measure on",
            where=folder,
            remedy="Give films of more patients (16 or more).",
        )
    return np.stack([pixels for pixels, _ in prepared]).astype(np.float32), films


def _listed(folder: Path) -> Iterator[Callable[[], RawFilm]]:
    """One reader for each line of index.csv."""
    with (folder / "index.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    absent = [name for name in NEEDED if not rows or name not in rows[0]]
    if absent:
        raise ReadError(
            f"index.csv lacks {', '.join(absent)}",
            where=folder,
            remedy=f"Add the columns. {FORMATS}",
        )
    for row in rows:
        yield partial(_read_listed, folder, row)


def _read_listed(folder: Path, row: dict[str, str]) -> RawFilm:
    if not row["image"] or not row["patient_id"]:
        raise ReadError("a line names no image or no patient", where=folder / "index.csv", remedy="Complete the line.")
    path = next((p for p in (folder / row["image"], folder / "images" / row["image"]) if p.is_file()), None)
    if path is None:
        raise ReadError(f"{row['image']} is listed but absent", where=folder, remedy="Remove its line or add the file.")
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture, dtype=np.float32)
        columns, rows = (float(row[f"orig_{name}"] or grey.shape[k]) for k, name in ((1, "width"), (0, "height")))
        steps = [float(row[f"orig_spacing_{axis}_mm"] or 0) for axis in "yx"]
        proportion = columns / rows
    except (OSError, ValueError, IndexError, ArithmeticError) as problem:
        raise ReadError(
            f"{row['image']} can't be read: {problem}", where=path, remedy="Replace or remove it."
        ) from None
    return RawFilm(
        path=path,
        name=row["image"],
        patient=row["patient_id"],
        sex=row.get("sex") or "",
        grey=grey,
        size_mm=(rows * steps[0], columns * steps[1]) if all(steps) else None,
        proportion=proportion,
    )


def _radiographs(folder: Path, damaged: list[Exception]) -> Iterator[Callable[[], RawFilm]]:
    """One reader for each frontal chest film among the DICOM files; `damaged` grows, others are counted and told."""
    left_out: Counter[str] = Counter()
    chosen: list[DicomFile] = []
    for found in dicom_files(files_below(folder)):
        if not isinstance(found, DicomFile):
            damaged.append(found)
        elif reason := _why_no_film(found):
            left_out[reason] += 1
        else:
            chosen.append(found)
    for reason, count in left_out.items():
        click.echo(f"{count} DICOM file(s) left out: {reason}", err=True)
    if not chosen and not damaged:
        raise ReadError(
            "The training folder has no index.csv and no DICOM chest film",
            where=folder,
            remedy=FORMATS,
        )
    if guessed := sum(found.guessed for found in chosen):
        click.echo(f"{guessed} film(s) name no patient: each study is taken for a patient of its own", err=True)
    for found in chosen:
        yield partial(_read_radiograph, folder, found)


def _why_no_film(found: DicomFile) -> str:
    """Why a DICOM picture is no frontal chest film for training; empty where it is one."""
    if found.modality not in FILM_MODALITIES:
        return f"modality {found.modality or 'unknown'}"
    if found.frames > 1:
        return "several frames"
    if found.view in SIDE_VIEWS:
        return "lateral view"
    if found.body_part not in CHEST:
        return f"body part {found.body_part}"
    return "raw detector values (FOR PROCESSING)" if found.intent == "FOR PROCESSING" else ""


def _read_radiograph(folder: Path, found: DicomFile) -> RawFilm:
    from HiResMedSynthLib.read import read_image

    image = read_image(found.path)
    grey = image.pixels[0].astype(np.float32)
    if image.padding_value is not None:  # what the detector didn't see is cut off, as far as a rectangle can
        seen = grey != image.padding_value
        if seen.any():
            grey = grey[bounding_box(seen)]
    spacing = image.pixel_spacing_mm
    return RawFilm(
        path=found.path,
        name=str(found.path.relative_to(folder)),
        patient=found.patient,
        sex=found.sex,
        grey=grey if image.bright_is_dense else -grey,
        size_mm=None if spacing is None else (grey.shape[0] * spacing[0], grey.shape[1] * spacing[1]),
        proportion=grey.shape[1] / grey.shape[0],
    )


def _on_canvas(film: RawFilm, *, canvas_px: int, spacing_mm: float) -> tuple[NDArray[np.float32], Film]:
    if film.size_mm is not None:
        height, width = (length / spacing_mm for length in film.size_mm)
    else:  # spacing unknown: the longer side fills the canvas
        longest = canvas_px / max(1.0, film.proportion)
        height, width = longest, longest * film.proportion
    shrink = min(1.0, canvas_px / max(width, height, 1.0))
    if film.grey.ndim != 2 or not (math.isfinite(width + height) and min(width, height) * shrink >= 8):
        raise ReadError(
            f"{film.name} is no grey picture of a possible size", where=film.path, remedy="Check its line and file."
        )
    if shrink < 0.9:
        click.echo(f"{film.name}: {width:.0f}x{height:.0f} px don't fit {canvas_px}; shrunk", err=True)
    columns, lines = round(width * shrink), round(height * shrink)
    grey = np.asarray(Image.fromarray(film.grey).resize((columns, lines), Image.Resampling.LANCZOS), dtype=np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    if not high > low:
        raise HiResMedSynthError(f"{film.name} is blank", where=film.path, remedy="Remove it.")
    grey = np.clip(2 * (grey - low) / (high - low) - 1, -1, 1)
    top, left = (canvas_px - lines) // 2, (canvas_px - columns) // 2
    border = ((top, canvas_px - lines - top), (left, canvas_px - columns - left))
    return np.pad(grey, border, mode="edge"), Film(
        name=film.name,
        patient=film.patient,
        label=SEXES.get(film.sex.strip().upper(), 0),
        held_out=held_out_by_rule(film.patient),
        field=(top, left, lines, columns),
        whole=film.size_mm is not None,
    )
