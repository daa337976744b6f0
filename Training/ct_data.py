"""Whole axial chest CT slices as the trainers want them: native 512 x 512 matrix, Hounsfield units through one window.

Input format (a site can make it from its own scans): any folder, of any depth, of

- DICOM CT series, as files or in ZIP archives (the patient is PatientID), and
- NRRD, NIfTI or MHA volumes in HU (the patient is the file name up to its first underscore), or
- `slices.npz` and `slices.csv` (columns `patient_id`, `pixel_spacing_mm`): single slices, whose HU are the running sum
  along a row of zigzag-coded steps u = 2 d (d >= 0) or -2 d - 1, split into the bytes `lo` and `hi`.

Slices are turned so that the front is up and the patient's left is on the right. What is no axial CT of that matrix is
left out and counted, and so are slices without lung. One patient's slices all fall on one side of the split.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.patient_split import held_out_by_rule
from Training.film_data import Film, FilmSet
from Training.folder_of_images import FORMATS, UNREADABLE, DicomFile, dicom_files, files_below, identity, tell_damaged

LOW_HU, HIGH_HU = -1200.0, 600.0  # the window: -1 and 1
NO_TISSUE_HU = -1500.0  # nothing in a scan is less dense; scanners fill what they didn't see with -2048 or -3024
LUNG_HU = (-940.0, -500.0)  # median of lung from here (gas lies at -955 and below), edge of lung
LUNG_SHARE = 0.05  # of the body's area
STEP_MM = 2.5  # slices nearer than this are near copies of each other
MOST_SLICES = 32  # of one series, evenly spread, so that no patient rules the set
MOST_PADDING = 0.4  # of a slice; outside the inscribed circle lies 0.21
SOLID = np.ones((5, 5), dtype=bool)
AXIAL = 0.9  # least cosine between an image axis and the body axis that it stands for
VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
MOST_DAMAGED = 5  # files of one series that are left out before the whole series is
VERSION = 1  # of the preparation: part of the cache's key


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Axial slices of one series: HU [slice, row, column], heights in mm [slice], the patient, the pixel spacing."""

    name: str
    patient: str
    hu: NDArray[np.float32]
    heights_mm: NDArray[np.float64]
    spacing_mm: float
    padding_hu: float | None = None


def load_slices(folders: list[Path], cache: Path, *, canvas_px: int = 512) -> FilmSet:
    """The lung slices of these folders, prepared once and kept in `cache`.

    `pixels` is [slice, row, column] in -1..1 (`LOW_HU`..`HIGH_HU`), -1 outside the scan; `masks()` is False there.
    Every film states its own `spacing_mm`; the set's is their median.

    Raises:
        ReadError: no slice that can be used, more than half of the series damaged, or one patient only.
    """
    told = f"{VERSION} {canvas_px} {[identity(folder, index=None) for folder in folders]}"
    packed = cache / f"slices-{hashlib.sha256(told.encode()).hexdigest()[:16]}.npz"
    if not packed.is_file():
        slices = _prepare(folders, canvas_px=canvas_px)
        cache.mkdir(parents=True, exist_ok=True)
        write_slices(slices, packed)
    return read_slices(packed)


def write_slices(slices: FilmSet, path: Path) -> None:
    """Packs a set into one file that needs no other reader (numpy, 16 bits a pixel, bzip2, no pickle).

    Arrays: `pixels` uint16 = round((value + 1) * 32767.5) [N, row, column]; `masks` uint8, eight pixels a byte
    (`np.packbits` along rows); `patient`, `name` str; `held_out` bool; `spacing_mm` float32.
    """
    arrays: dict[str, NDArray[Any]] = {
        "pixels": np.round((slices.pixels.astype(np.float64) + 1) * 32767.5).astype(np.uint16),
        "masks": np.packbits(slices.masks(), axis=-1),
        "patient": np.array([film.patient for film in slices.films]),
        "name": np.array([film.name for film in slices.films]),
        "held_out": np.array([film.held_out for film in slices.films]),
        "spacing_mm": np.array([film.spacing_mm for film in slices.films], dtype=np.float32),
    }
    with (
        written_aside(path) as aside,
        zipfile.ZipFile(aside, "w", zipfile.ZIP_BZIP2) as archive,  # a third smaller than savez_compressed
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)


def read_slices(path: Path) -> FilmSet:
    """The set in a file of `write_slices`.

    Raises:
        ReadError: it is no such file.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            pixels = (arrays["pixels"] / np.float32(32767.5) - 1).astype(np.float32)
            inside = np.unpackbits(arrays["masks"], axis=-1, count=pixels.shape[-1]).astype(bool)
            facts = [arrays[name].tolist() for name in ("name", "patient", "held_out", "spacing_mm")]
        count, rows, columns = pixels.shape
        field = (0, 0, rows, columns)
        films = tuple(
            Film(name=name, patient=patient, label=0, held_out=held_out, field=field, spacing_mm=spacing)
            for name, patient, held_out, spacing in zip(*facts, strict=True)
        )
        if inside.shape != pixels.shape or not 0 < count == len(films):
            raise ValueError("its arrays are of different lengths")
    except UNREADABLE as problem:
        raise ReadError(f"It holds no packed slices ({problem})", where=path, remedy="Prepare them anew.") from None
    median = float(np.median([film.spacing_mm for film in films]))
    return FilmSet(pixels=pixels, films=films, spacing_mm=median, inside=inside)


def to_unit(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """HU to -1..1 through the window, clipped."""
    return np.asarray(np.clip(2 * (hu - LOW_HU) / (HIGH_HU - LOW_HU) - 1, -1, 1), dtype=np.float32)


def to_hu(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """-1..1 back to HU."""
    return np.asarray((values + 1) / 2 * (HIGH_HU - LOW_HU) + LOW_HU, dtype=np.float32)


def scan_mask(hu: NDArray[np.float32], padding_hu: float | None = None) -> NDArray[np.bool_]:
    """[row, column], False where the scanner saw nothing.

    That are impossible values; where there are none, the solid areas of one value (of air, or `padding_hu`) that hold
    a corner: what lies outside the circle of the scan, wherever its centre is. A header's padding value alone proves
    nothing: air inside the circle may have it too.
    """
    from scipy import ndimage

    padded = np.asarray(hu < NO_TISSUE_HU)
    if padded.any():
        return ~padded
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        value = hu[row, column]
        if padded[row, column] or not (value < LUNG_HU[1] or value == padding_hu):
            continue
        same = hu == value
        core = ndimage.binary_erosion(same, SOLID, border_value=1)  # air clipped to one value is never as solid
        pieces, _ = ndimage.label(core)
        if pieces[row, column]:
            padded |= ndimage.binary_dilation(pieces == pieces[row, column], SOLID, mask=same)
    if padded.mean() > MOST_PADDING:  # air without noise: only what no scan circle holds is sure to be outside
        half = min(hu.shape) / 2
        y, x = np.ogrid[: hu.shape[0], : hu.shape[1]]
        padded &= np.hypot(y - (hu.shape[0] - 1) / 2, x - (hu.shape[1] - 1) / 2) > half
    return ~padded


def lung_share(hu: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Area of lung in the body over the body's area: the body is the largest dense piece, its holes filled.

    Lung are the pieces below -500 HU whose median is not that of gas, as in bowel and airways.
    """
    from scipy import ndimage

    dense = ndimage.binary_opening((hu > LUNG_HU[1]) & inside, iterations=2)
    pieces, count = ndimage.label(dense)
    if count == 0:
        return 0.0
    largest = int(np.argmax(np.bincount(pieces.ravel())[1:])) + 1
    body = ndimage.binary_fill_holes(pieces == largest)
    airy, count = ndimage.label(body & (hu < LUNG_HU[1]))
    medians = np.atleast_1d(
        ndimage.median(hu, airy, np.arange(1, count + 1))
    )  # noise of a sharp kernel leaves it alone
    sizes = np.bincount(airy.ravel(), minlength=count + 1)[1:]
    return float(sizes[medians > LUNG_HU[0]].sum() / body.sum()) if count else 0.0


def _prepare(folders: list[Path], *, canvas_px: int) -> FilmSet:
    values: list[NDArray[np.float32]] = []
    masks: list[NDArray[np.bool_]] = []
    films: list[Film] = []
    left_out: Counter[str] = Counter()
    for folder in folders:
        damaged: list[Exception] = []
        total = 0
        for found in _stacks(folder, canvas_px, left_out):
            total += 1
            if isinstance(found, Exception):
                damaged.append(found)
                continue
            for index, inside in _lung_slices(found, left_out):
                values.append(np.where(inside, to_unit(found.hu[index]), np.float32(-1)))
                masks.append(inside)
                films.append(_film(found, index, canvas_px))
        tell_damaged(damaged, total, folder)
    for reason, count in left_out.items():
        click.echo(f"left out: {count} {reason}", err=True)
    if not films:
        raise ReadError(
            f"There is no axial chest CT slice of {canvas_px} x {canvas_px}",
            where=", ".join(str(folder) for folder in folders),
            remedy=FORMATS,
        )
    films = _both_sides(films, folders)
    median = float(np.median([film.spacing_mm for film in films if film.spacing_mm]))
    return FilmSet(pixels=np.stack(values), films=tuple(films), spacing_mm=median, inside=np.stack(masks))


def _film(stack: Stack, index: int, canvas_px: int) -> Film:
    return Film(
        name=f"{stack.name} {stack.heights_mm[index]:.2f} mm",
        patient=stack.patient,
        label=0,
        held_out=held_out_by_rule(stack.patient),
        field=(0, 0, canvas_px, canvas_px),
        spacing_mm=stack.spacing_mm,
    )


def _both_sides(films: list[Film], folders: list[Path]) -> list[Film]:
    """The films with at least one patient on each side; few patients may all fall on one by chance."""
    patients = {film.patient for film in films}
    if len(patients) < 2:
        raise ReadError(
            "All slices are of one patient", where=folders[0], remedy="Give scans of more patients (16 or more)."
        )
    if len({film.held_out for film in films}) == 2:
        return films
    chosen = min(patients, key=lambda patient: hashlib.sha256(patient.encode()).hexdigest())
    click.echo(f"By the rule all {len(patients)} patients fall on one side: one was chosen to be held out", err=True)
    return [replace(film, held_out=film.patient == chosen) for film in films]


def _lung_slices(stack: Stack, left_out: Counter[str]) -> list[tuple[int, NDArray[np.bool_]]]:
    """Index and scan mask of slices with lung, `STEP_MM` apart or more, at most `MOST_SLICES`."""
    chosen: list[tuple[int, NDArray[np.bool_]]] = []
    for index in np.argsort(stack.heights_mm, kind="stable").tolist():
        if chosen and stack.heights_mm[index] - stack.heights_mm[chosen[-1][0]] < STEP_MM * 0.99:
            left_out[f"slices nearer than {STEP_MM} mm to another"] += 1
            continue
        inside = scan_mask(stack.hu[index], stack.padding_hu)
        if lung_share(stack.hu[index], inside) < LUNG_SHARE:
            left_out["slices without lung"] += 1
        else:
            chosen.append((index, inside))
    if len(chosen) > MOST_SLICES:
        left_out[f"slices beyond {MOST_SLICES} of one series"] += len(chosen) - MOST_SLICES
        chosen = [chosen[k] for k in np.linspace(0, len(chosen) - 1, MOST_SLICES).round().astype(int).tolist()]
    return chosen


def _stacks(folder: Path, canvas_px: int, left_out: Counter[str]) -> Iterator[Stack | Exception]:
    """The CT series, volumes and packed slices of a folder; an error in place of one that is damaged."""
    paths = files_below(folder)
    if (folder / "slices.npz").is_file() and (folder / "slices.csv").is_file():
        yield from _packed(folder, canvas_px, left_out)
    yield from _series(paths, canvas_px, left_out)
    for path in paths:
        if path.suffix.lower() == ".zip":
            yield from _zipped(path, canvas_px, left_out)
        elif path.name.lower().endswith(VOLUMES):
            yield from _volume(path, canvas_px, left_out)


def _packed(folder: Path, canvas_px: int, left_out: Counter[str]) -> Iterator[Stack | Exception]:
    try:
        with (folder / "slices.csv").open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
        with np.load(folder / "slices.npz", allow_pickle=False) as arrays:
            zigzag = arrays["lo"].astype(np.int32) | (arrays["hi"].astype(np.int32) << 8)
        steps = (zigzag >> 1) ^ -(zigzag & 1)
        slices = np.cumsum(steps, axis=2).astype(np.float32)
        facts = [(row["patient_id"], float(row["pixel_spacing_mm"])) for row, _ in zip(rows, slices, strict=True)]
    except UNREADABLE as problem:
        yield ReadError(f"its slices.npz or slices.csv can't be read ({problem})", where=folder, remedy="Replace it.")
        return
    if slices.shape[1:] != (canvas_px, canvas_px):
        left_out[f"series of another matrix than {canvas_px} x {canvas_px}"] += len(slices)
        return
    for index, (hu, (patient, spacing)) in enumerate(zip(slices, facts, strict=True)):
        yield Stack(
            name=f"{folder.name} {index}", patient=patient, hu=hu[np.newaxis], heights_mm=np.zeros(1),
            spacing_mm=spacing,
        )  # fmt: skip


def _series(paths: list[Path], canvas_px: int, left_out: Counter[str]) -> Iterator[Stack | Exception]:
    """The CT series among these files."""
    from HiResMedSynthLib.read_dicom import read_dicom_files

    groups: dict[tuple[str, str], list[DicomFile]] = {}
    for found in dicom_files(paths):
        if not isinstance(found, DicomFile):
            click.echo(f"left out: {found}", err=True)
            left_out["damaged DICOM files"] += 1
        elif found.modality != "CT" or "LOCALIZER" in found.image_type:
            left_out["DICOM files that are no CT slice"] += 1
        else:
            groups.setdefault((found.patient, found.series), []).append(found)
    if guessed := sum(group[0].guessed for group in groups.values()):
        click.echo(f"{guessed} series name no patient: each study is taken for a patient of its own", err=True)
    for (patient, series), group in groups.items():
        files = [found.path for found in group]
        where = files[0].parent
        for _ in range(MOST_DAMAGED + 1):
            try:
                image = read_dicom_files(files, where=where, spacing_mm=None, series=None, slice_index=None)
                yield from _axial(image, f"series {series[-12:]}", patient, canvas_px, left_out)
                break
            except (HiResMedSynthError, OSError) as problem:
                whole = [path for path in files if str(path) != getattr(problem, "where", None)]
                if len(whole) == len(files) or not whole:  # not one slice's fault, or no slice left
                    yield problem
                    break
                click.echo(f"left out: {problem}", err=True)
                left_out["damaged DICOM files"] += 1
                files = whole
        else:
            yield ReadError(f"more than {MOST_DAMAGED} files of a series are damaged", where=where, remedy="Mend it.")


def _zipped(path: Path, canvas_px: int, left_out: Counter[str]) -> Iterator[Stack | Exception]:
    with tempfile.TemporaryDirectory() as room:
        try:
            unpacked: list[Path] = []
            with zipfile.ZipFile(path) as archive:
                for number, member in enumerate(archive.infolist()):
                    if not member.is_dir():  # under a number: a name in an archive may point anywhere
                        unpacked.append(Path(room) / f"{number:06d}")
                        unpacked[-1].write_bytes(archive.read(member))
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile) as problem:
            yield ReadError(f"{path.name} can't be unpacked ({problem})", where=path, remedy="Replace it.")
            return
        yield from _series(unpacked, canvas_px, left_out)


def _volume(path: Path, canvas_px: int, left_out: Counter[str]) -> Iterator[Stack | Exception]:
    from HiResMedSynthLib.read import read_image

    try:
        image = read_image(path)
    except HiResMedSynthError as problem:
        yield problem
        return
    if image.modality != "CT":
        left_out["volumes without values of air (label maps, other modalities)"] += 1
        return
    name = path.name[: -len(next(end for end in VOLUMES if path.name.lower().endswith(end)))]
    yield from _axial(image, name, name.split("_")[0], canvas_px, left_out)


def _axial(image: MedicalImage, name: str, patient: str, canvas_px: int, left_out: Counter[str]) -> Iterator[Stack]:
    """The image as a stack, front up and the patient's left on the right; nothing where it is none of that matrix."""
    across, down = image.directions_lps
    pixels = image.pixels
    spacing = image.pixel_spacing_mm
    if abs(across[0]) < AXIAL:  # stored with rows and columns exchanged
        across, down, pixels = down, across, pixels.transpose(0, 2, 1)
    if abs(across[0]) < AXIAL or abs(down[1]) < AXIAL:
        left_out["series that are not axial"] += 1
    elif pixels.shape[1:] != (canvas_px, canvas_px):
        left_out[f"series of another matrix than {canvas_px} x {canvas_px}"] += 1
    elif spacing is None or max(spacing) > 1.01 * min(spacing):
        left_out["series of unknown spacing or with pixels that are not square"] += 1
    else:
        assert image.positions_lps_mm is not None
        pixels = pixels[:, :: 1 if down[1] > 0 else -1, :: 1 if across[0] > 0 else -1]
        yield Stack(
            name=name,
            patient=patient,
            hu=pixels.astype(np.float32),
            heights_mm=image.positions_lps_mm[:, 2].copy(),
            spacing_mm=sum(spacing) / 2,
            padding_hu=image.padding_value,
        )
