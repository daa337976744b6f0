"""Do nodules that are put onto chest films look like real ones there?

python -m Testing.benchmarks.fusion_film FOLDER_OF_lidc_nodule_voi_hu FOLDER_OF_cxr_nih --out FOLDER

Real films with a known nodule were not to be had, so the real class is a real nodule's shadow: what it adds to the rays
through its CT, found by erasing it there (`Training.build_film_contrasts.shadow_of`), laid onto a clean film. The
composed class is another patient's nodule of like size and type, drawn at the same place of the same film by
`draw_case`. Hosts are the patients that the shipped table has not seen. The grey scale of the film is the same for
both: how bright a nodule would be on that film is not tested here, only how its shadow is formed.
"""

from __future__ import annotations

import csv
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.evaluation.machine_reader import feature_reader
from HiResMedSynthLib.evaluation.reading import Reading
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.inpaint import inpaint
from HiResMedSynthLib.joining.film_shadow import ShadowMeasures, shadow_measures
from HiResMedSynthLib.lesion.lesion import Lesion
from Testing.benchmarks.fusion import LIKE_SIZE, bank_of
from Training.build_bank import entry, judge
from Training.build_film_contrasts import Shadow, is_test_patient, shadow_of
from Training.nodule_source import SourceNodule, nodules

WAYS = ("better", "alpha")
NAMES = ("contrast", "edge_width_mm", "anatomic_cnr")
SIZES_MM = (5.0, 25.0)
FILMS = 30
GRID, ACROSS = 24, 2.5  # pixels of the reader's window, its edge in diameters
ERASED = 0.75  # of the diameter: what the reader inpaints to guess the shadow
DEEP = 8  # slices of the window that the 3-D features see; all are alike
SEED = 3
SEEN_MM = 10.0  # smaller ones are hardly seen on a film: the sheet shows larger ones
TILE_MM, FINEST_MM = 30.0, 0.34
FULL_QUALITY = 80  # JPEG, of whole films
GREYS = 5  # steps of the sheets: a small file


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """A host and a donor on one film: the film (dense = high), its spacing, and each way's film."""

    host: SourceNodule
    donor: Lesion
    diameter_mm: float
    spacing_mm: tuple[float, float]
    center: tuple[float, float]
    film: NDArray[np.float32]
    made: dict[str, NDArray[np.float32]]
    around: float
    outside: dict[str, Any]
    redrawn: int


def matched(found: list[SourceNodule]) -> Iterator[tuple[SourceNodule, Shadow, Lesion]]:
    """(host, its shadow, donor): same type, like size, each donor used once; donors are no test patients."""
    donors = [entry(one, f"donor-{k}") for k, one in enumerate(map(judge, found)) if one is not None]
    donors = [donor for donor in donors if not is_test_patient(str(donor.card.patient_id))]
    rng = np.random.default_rng(SEED)
    for k in rng.permutation(len(found)):
        host = found[k]
        if not is_test_patient(host.patient_id) or (shadow := shadow_of(host)) is None:
            continue
        if not SIZES_MM[0] <= shadow.diameter_mm <= SIZES_MM[1]:
            continue
        apart = {
            n: abs(math.log(donor.card.diameter_mm / shadow.diameter_mm))
            for n, donor in enumerate(donors)
            if donor.card.type == host.type
        }
        if apart and min(apart.values()) <= math.log(LIKE_SIZE):
            yield host, shadow, donors.pop(min(apart, key=apart.__getitem__))


def grounds(folder: Path, limit: int | None = None) -> list[Ground]:
    """Clean films, prepared; those on which no lungs are found are left out. At most `limit` are looked at."""
    with (folder / "index.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = []
    for row in rows[:: max(len(rows) // FILMS, 1)][:limit]:
        spacing = [float(row[f"orig_{side}"]) * float(row[f"orig_spacing_{axis}_mm"]) / 1024
                   for side, axis in (("height", "y"), ("width", "x"))]  # fmt: skip
        image = MedicalImage(
            pixels=np.asarray(Image.open(folder / "images" / row["image"])), modality="DX",
            pixel_spacing_mm=(spacing[0], spacing[1]), spacing_source="header",
        )  # fmt: skip
        try:
            found.append(prepare_ground(image, domain="cxr"))
        except HiResMedSynthError as error:
            click.echo(f"{row['image']}: {error.what}", err=True)
    return found


def place(ground: Ground, diameter_mm: float, rng: np.random.Generator) -> tuple[int, int]:
    """A pixel of the lungs with room for the nodule."""
    _, *spacing = ground.image.spacing_mm
    room = distance_transform_edt(~ground.forbidden()[0], sampling=spacing)
    at = np.argwhere(room > min(1.2 * diameter_mm, 0.9 * room.max()))
    row, column = at[rng.integers(len(at))]
    return int(row), int(column)


def laid_on(ground: Ground, shadow: Shadow, at: tuple[int, int]) -> NDArray[np.float32]:
    """The film with a real nodule's shadow, rounded as a film is."""
    film = ground.film
    _, *spacing = ground.image.spacing_mm
    middle = np.average(np.argwhere(shadow.depth_mm > 0), axis=0, weights=shadow.depth_mm[shadow.depth_mm > 0])
    grids = np.meshgrid(*(np.arange(n) for n in film.shape), indexing="ij", sparse=True)
    index = [
        (g - c) * s / own + m for g, c, s, own, m in zip(grids, at, spacing, shadow.spacing_mm, middle, strict=True)
    ]
    depth = map_coordinates(shadow.depth_mm, np.broadcast_arrays(*index), order=1, mode="constant")
    slope = ground.film_scale.at(gaussian_filter(film, [3.0 / step for step in spacing]))
    return np.asarray(np.floor(film + depth * slope + 0.5), dtype=np.float32)


def paired(ground: Ground, host: SourceNodule, shadow: Shadow, donor: Lesion, rng: np.random.Generator) -> Pair:
    """The host's shadow and the donor by each way on that film."""
    at = place(ground, shadow.diameter_mm, rng)
    request = LesionRequest(
        place=(0.0, float(at[0]), float(at[1])), type=host.type,  # type: ignore[arg-type]
        size_mm=(shadow.diameter_mm, shadow.diameter_mm), bank_entry=donor.card.name, seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    made = {"real": laid_on(ground, shadow, at)}
    outside, redrawn, around = {}, 0, 0.0
    for way in WAYS:
        settings = CaseSettings(requests=(request,), domain="cxr", fusion=way)  # type: ignore[arg-type]
        case = draw_case(ground.image, settings, SEED, bank=bank_of(donor), ground=ground)
        made[way] = compose(ground.image, case).image.pixels[0].astype(np.float32)
        if way == "better":
            lesion = case.lesions[0]
            outside = lesion.details["acceptance"]["outside"]
            redrawn = sum("drawn again" in line for line in case.log)
            around = ground.film_anatomy.around((lesion.corner[1], lesion.corner[2]), lesion.alpha.shape[1:])
    return Pair(
        host=host, donor=donor, diameter_mm=shadow.diameter_mm, spacing_mm=ground.image.spacing_mm[1:],
        center=(float(at[0]), float(at[1])), film=ground.film, made=made, around=around, outside=outside,
        redrawn=redrawn,
    )  # fmt: skip


def measures(pair: Pair, way: str) -> ShadowMeasures:
    """Of a shadow: its film less the film without it."""
    shadow = np.maximum(_cut(pair.made[way] - pair.film, pair, 3.0), 0)
    return shadow_measures(shadow, spacing_mm=pair.spacing_mm, around=pair.around)


def _cut(picture: NDArray[np.float32], pair: Pair, across: float) -> NDArray[np.float32]:
    """The square of so many diameters about the lesion."""
    half = [math.ceil(across / 2 * pair.diameter_mm / step) for step in pair.spacing_mm]
    padded = np.pad(picture, [(h, h) for h in half], mode="edge")
    row, column = (round(c) for c in pair.center)
    return padded[row : row + 2 * half[0] + 1, column : column + 2 * half[1] + 1]


def window(pair: Pair, way: str, *, known: bool) -> NDArray[np.float32]:
    """`[2, 8, n, n]` for the reader: (share times grey, share of shadow), slices alike.

    Args:
        pair, way: what is read.
        known: the shadow is the film less the film without it, which only the maker has; else it is guessed from the
            pixels, by filling the place from its surroundings.
    """
    film = _cut(pair.made[way], pair, ACROSS)
    if known:
        shadow = _cut(pair.made[way] - pair.film, pair, ACROSS)
    else:
        rows, columns = (np.arange(n) - n // 2 for n in film.shape)
        away = np.hypot(rows[:, None] * pair.spacing_mm[0], columns[None] * pair.spacing_mm[1])
        shadow = film - inpaint(film, away < ERASED * pair.diameter_mm, spacing_mm=pair.spacing_mm)
    edge = ACROSS * pair.diameter_mm
    offsets = (np.arange(GRID) + 0.5) / GRID * edge - edge / 2
    grid = np.stack(
        np.meshgrid(*(n // 2 + offsets / s for n, s in zip(film.shape, pair.spacing_mm, strict=True)), indexing="ij")
    )
    seen = map_coordinates(shadow.astype(np.float32), grid, order=1, mode="nearest")
    share = np.clip(seen / max(float(np.percentile(seen, 98)), 1.0), 0, 1)
    grey = seen / max(pair.around, 1.0)
    plane = np.stack([share * grey, share]).astype(np.float32)
    return np.repeat(plane[:, np.newaxis], DEEP, axis=1)


def tile(pair: Pair, way: str, *, across_mm: float, zoom: int) -> NDArray[np.uint8]:
    """A square of film about the lesion, pixels made square, in the range of 60 mm of it, so many times enlarged."""
    import cv2

    half = [round(across_mm / 2 / step) for step in pair.spacing_mm]
    padded = np.pad(pair.made[way], [(h, h) for h in half], mode="edge")
    row, column = (round(c) for c in pair.center)
    crop = padded[row : row + 2 * half[0], column : column + 2 * half[1]]
    low, high = np.percentile(_cut(pair.film, pair, 2 * TILE_MM / pair.diameter_mm), [1, 99])
    grey = (np.clip((crop - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    side = zoom * round(across_mm / FINEST_MM)
    return np.asarray(cv2.resize(grey, (side, side), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def sheet(pairs: list[Pair], file: Path) -> list[str]:
    """Writes pairs real and `better` in random order, a row each, 60 mm at once and 30 mm four times; gives the key."""
    import cv2

    rng = np.random.default_rng(SEED)
    rows, key = [], []
    for pair in pairs:
        real_left = bool(rng.integers(2))
        ways = ("real", "better") if real_left else ("better", "real")
        large = [tile(pair, way, across_mm=TILE_MM, zoom=4) for way in ways]
        small = np.vstack([tile(pair, way, across_mm=2 * TILE_MM, zoom=1) for way in ways])
        rows.append(np.pad(np.hstack([small, *(np.pad(one, ((0, 0), (4, 0))) for one in large)]), ((0, 4), (0, 0))))
        key.append(
            f"{pair.host.row['key']}, {pair.host.type}, {pair.diameter_mm:.0f} mm: "
            f"real {'left' if real_left else 'right'} (at once: {'above' if real_left else 'below'})"
        )
    part = file.with_name("part-" + file.name)
    cv2.imwrite(str(part), np.vstack(rows) // GREYS * GREYS, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    part.replace(file)
    return key


def full_size(pair: Pair, file: Path) -> str:
    """Writes both whole films of a pair, a pixel a pixel (the wider side stretched), in random order; gives the key."""
    import cv2

    real_left = bool(np.random.default_rng(SEED).integers(2))
    low, high = np.percentile(pair.film, [0.5, 99.5])
    films = []
    for way in ("real", "better") if real_left else ("better", "real"):
        grey = (np.clip((pair.made[way] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        size = [round(n * step / min(pair.spacing_mm)) for n, step in zip(grey.shape, pair.spacing_mm, strict=True)]
        films.append(cv2.resize(grey, (size[1], size[0]), interpolation=cv2.INTER_CUBIC))
    part = file.with_name("part-" + file.name)
    cv2.imwrite(str(part), np.hstack(films), [cv2.IMWRITE_JPEG_QUALITY, FULL_QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    part.replace(file)
    row, column = (round(c) for c in pair.center)
    return (
        f"{pair.host.row['key']}, {pair.host.type}, {pair.diameter_mm:.0f} mm at row {row}, column {column} of the "
        f"film: real {'left' if real_left else 'right'}"
    )


def median(values: NDArray[np.float64], rng: np.random.Generator) -> str:
    """The median with its 95 % interval by bootstrap, in words."""
    values = values[np.isfinite(values)]
    low, high = np.percentile(np.median(rng.choice(values, (2000, len(values))), axis=1), [2.5, 97.5])
    return f"{np.median(values):.3g} ({low:.3g} to {high:.3g})"


def area(reading: Reading) -> str:
    """The AUC with its 95 % interval, in words."""
    low, high = reading.interval()
    return f"{reading.auc:.2f} ({low:.2f} to {high:.2f})"


def worst(pairs: list[Pair]) -> list[Pair]:
    """By the acceptance test: those outside first, then those farthest from the real nodule of the same place."""

    def apart(pair: Pair) -> float:
        real, made = measures(pair, "real"), measures(pair, "better")
        logs = [
            abs(math.log(getattr(made, n) / getattr(real, n))) for n in NAMES if getattr(real, n) > 0 < getattr(made, n)
        ]
        return 10.0 * len(pair.outside) + max(logs, default=0.0)

    return sorted(pairs, key=apart, reverse=True)


def read(pairs: list[Pair]) -> None:
    """Prints what the machine reader can tell apart."""
    patients = [pair.host.patient_id for pair in pairs]
    click.echo("\n| against | sees | n | AUC (95 %) |\n| --- | --- | --- | --- |")
    for known, sees in ((False, "pixels"), (True, "the shadow alone")):
        grids = {way: np.stack([window(pair, way, known=known) for pair in pairs]) for way in ("real", *WAYS)}
        for way in WAYS:
            reading = feature_reader(grids["real"], grids[way], patients, patients, 0)
            click.echo(f"| real, {way} | {sees} | {len(pairs)} + {len(pairs)} | {area(reading)} |")
        half = np.random.default_rng(0).permutation(len(pairs))
        one, other = half[: len(half) // 2], half[len(half) // 2 :]
        names = np.array(patients)
        control = feature_reader(grids["real"][one], grids["real"][other], names[one], names[other], 0)
        click.echo(f"| real, other real | {sees} | {len(one)} + {len(other)} | {area(control)} |")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
@click.argument("films", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the sheets.")
@click.option("--limit", type=int, help="At most so many pairs.")
@click.option("--full", "full_mm", type=float, help="Only the first pair of that many mm, as whole films: full.jpg.")
@click.option("--reader/--no-reader", default=True, help="Whether the machine reader reads them.")
def main(folder: Path, films: Path, out: Path, limit: int | None, full_mm: float | None, reader: bool) -> None:
    """Prints the tables as Markdown and writes two sheets into OUT."""
    out.mkdir(parents=True, exist_ok=True)
    begun = time.process_time()
    rng, chosen = np.random.default_rng(SEED), matched(list(nodules(folder)))
    if full_mm is not None:
        host, shadow, donor = next(one for one in chosen if one[1].diameter_mm >= full_mm)
        click.echo(full_size(paired(grounds(films, 1)[0], host, shadow, donor, rng), out / "full.jpg"))
        return
    prepared = grounds(films)
    pairs: list[Pair] = []
    for k, (host, shadow, donor) in enumerate(itertools.islice(chosen, limit)):
        try:
            pairs.append(paired(prepared[k % len(prepared)], host, shadow, donor, rng))
        except HiResMedSynthError as error:
            click.echo(f"{host.row['key']}: {error.what}", err=True)
    click.echo(f"{len(pairs)} pairs on {len(prepared)} films, {time.process_time() - begun:.0f} CPU s")
    for words, found in (
        ("edge width of the films, mm", [one.film_sharpness.edge_width_mm for one in prepared]),
        ("grey levels a mm of water", [one.film_scale.grey_per_mm for one in prepared]),
        ("share of it behind the heart", [one.film_scale.shares[1] for one in prepared if one.film_scale.shares]),
        ("the old scale over the new", [one.grey_per_mm_water / one.film_scale.grey_per_mm for one in prepared]),
    ):
        low, middle, high = np.percentile(found, [5, 50, 95])
        click.echo(f"{words}: {middle:.2f} (5th to 95th percentile {low:.2f} to {high:.2f})")
    kinds = [pair.host.type for pair in pairs]
    click.echo(", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds))))
    click.echo("\n| measure | | median (95 %) | over real, same place | apart |\n| --- | --- | --- | --- | --- |")
    draws = np.random.default_rng(0)
    table = {way: [measures(pair, way) for pair in pairs] for way in ("real", *WAYS)}
    for name in NAMES:
        own = np.array([getattr(one, name) for one in table["real"]])
        click.echo(f"| {name} | real | {median(own, draws)} | | |")
        for way in WAYS:
            values = np.array([getattr(one, name) for one in table[way]])
            with np.errstate(divide="ignore", invalid="ignore"):
                ratio = values / own
            ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
            click.echo(
                f"| | {way} | {median(values, draws)} | {median(ratio, draws)} "
                f"| {median(np.abs(np.log(ratio)), draws)} |"
            )
    redrawn, unlike = sum(pair.redrawn > 0 for pair in pairs), sum(bool(pair.outside) for pair in pairs)
    click.echo(f"\nbetter: {redrawn} of {len(pairs)} drawn again, {unlike} taken at their best")
    large = [pair for pair in pairs if pair.diameter_mm >= SEEN_MM]
    click.echo("\n" + "\n".join(sheet(large[:: max(len(large) // 4, 1)][:3], out / "pairs.png")))
    click.echo("\nworst: " + "\n".join(sheet(worst(pairs)[:8], out / "worst.png")))
    if reader:
        read(pairs)
    click.echo(f"\n{time.process_time() - begun:.0f} CPU s in all")


if __name__ == "__main__":
    main()
