"""Can a small 2-D network tell composed CT slices from untouched ones?

python -m Testing.benchmarks.slice_reader FOLDER_OF_lidc_nodule_patches FOLDER_OF_lidc_nodule_voi_hu --out FOLDER

A window of 34 mm or so about a real nodule against one about another patient's, of like size and density, put into
healthy lung of the same untouched picture, as the product does it. Every donor is used once, none is a host. `paste`
(no edge) shows that the reader sees what is to be seen.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.case import HALF, CaseSettings, LesionRequest
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError, PlacementError
from HiResMedSynthLib.evaluation.picture_reader import picture_reader
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion
from Testing.benchmarks.fusion import LIKE_SIZE, SEED, bank_of
from Testing.benchmarks.reader_rows import HEAD, TOLD, control, row, sheet, where_it_looked
from Testing.benchmarks.utility_material import ground_of
from Training.build_bank import entry, judge
from Training.erased_pairs import ErasedPatch
from Training.erased_store import load_erased
from Training.location_data import LungPatch
from Training.nodule_source import nodules

LIKE_HU = 150.0  # a donor's core from its host's
CORE_ALPHA = 0.9
SIDE_PX, APART_PX = 48, 4  # of a window; between it and the nodule that it must not show
COVER_PX = 11  # radius of the disc
MIDDLE_HU, HALF_WIDTH_HU = -450.0, 750.0
EPOCHS = 30
WAYS = ("better", "alpha", "paste")


def pairs(items: list[ErasedPatch], donors: list[Lesion]) -> list[tuple[ErasedPatch, Lesion]]:
    """(host, donor) of like size and density, each used once, in a fixed shuffled order."""
    giving = {donor.card.patient_id for donor in donors}
    free = [item for item in items if item.patch.patient_id not in giving]
    matched = []
    for index in np.random.default_rng(SEED).permutation(len(donors)):
        donor = donors[index]
        core = float(np.median(donor.intensity_hu[donor.alpha >= CORE_ALPHA * ALPHA_ONE]))
        apart = {
            k: abs(math.log(_diameter_mm(item.patch) / donor.card.diameter_mm))
            for k, item in enumerate(free)
            if abs(float(np.percentile(item.patch.hu[item.patch.lesion], 75)) - core) <= LIKE_HU
        }
        if apart and min(apart.values()) <= math.log(LIKE_SIZE):
            matched.append((free.pop(min(apart, key=apart.__getitem__)), donor))
    return matched


def composed(item: ErasedPatch, donor: Lesion, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """The windows of a pair: "real", and the donor by each way elsewhere in the same picture.

    Raises:
        PlacementError: no healthy place is far enough from the nodule and from the picture's border.
    """
    patch = item.patch
    away = [place.centre for place in item.shams if _stands_apart(place.centre, patch)]
    if not away:
        raise PlacementError("there is no healthy place apart", remedy="Leave the picture out.")
    elsewhere = away[int(rng.integers(len(away)))]
    made = _put_in(patch, elsewhere, _diameter_mm(patch), donor)
    found = {way: window(patch, hu, elsewhere) for way, hu in made.items()}
    whole = {"real, whole": _shown(patch, patch.hu), "better, whole": _shown(patch, made["better"])}
    return {"real": window(patch, patch.hu, _centre(patch)), **found, **whole}


def _centre(patch: LungPatch) -> tuple[float, float]:
    row_, column = np.argwhere(patch.lesion).mean(axis=0)
    return float(row_), float(column)


def _stands_apart(place: tuple[float, float], patch: LungPatch) -> bool:
    """Whether a window about that place lies in the picture and doesn't show the nodule."""
    half = SIDE_PX / 2
    radius = _diameter_mm(patch) / 2 / patch.spacing_mm
    far = max(abs(a - b) for a, b in zip(place, _centre(patch), strict=True)) > half + radius + APART_PX
    return far and all(half <= at <= side - half for at, side in zip(place, patch.hu.shape, strict=True))


def _put_in(
    patch: LungPatch, place: tuple[float, float], diameter_mm: float, donor: Lesion
) -> dict[str, NDArray[np.float32]]:
    """The picture with the donor there, by each way; HU."""
    request = LesionRequest(
        place=(0.0, *place), type=donor.card.type, size_mm=(diameter_mm, diameter_mm),  # type: ignore[arg-type]
        bank_entry=donor.card.name,
    )  # fmt: skip
    ground, found = ground_of(patch), {}
    for way in ("better", "alpha"):
        settings = CaseSettings(requests=(request,), domain="lung-ct", fusion=way)  # type: ignore[arg-type]
        case = draw_case(ground.image, settings, SEED, bank=bank_of(donor), ground=ground)
        found[way] = compose(ground.image, case).image.pixels[0].astype(np.float32)
        if way == "alpha":
            pasted, lesion = ground.image.pixels.copy(), case.lesions[0]
            np.copyto(pasted[lesion.region], lesion.intensity, where=lesion.alpha >= HALF)
            found["paste"] = pasted[0].astype(np.float32)
    return found


def _diameter_mm(patch: LungPatch) -> float:
    return 2 * math.sqrt(float(patch.lesion.sum()) / math.pi) * patch.spacing_mm


def window(patch: LungPatch, hu: NDArray[np.float32], place: tuple[float, float]) -> NDArray[np.float32]:
    """`[48, 48]` native pixels about a place, about -1 to 1; beyond the picture its last ones are repeated."""
    half = SIDE_PX // 2
    row_, column = (round(at) for at in place)
    return _shown(patch, np.pad(hu, half, mode="edge")[row_ : row_ + SIDE_PX, column : column + SIDE_PX])


def covered(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The windows with a disc over the lesion: what is left are its surroundings."""
    rows, columns = np.indices(windows.shape[1:]) - (SIDE_PX - 1) / 2
    return np.where(np.hypot(rows, columns) < COVER_PX, np.float32(0), windows)


def _shown(patch: LungPatch, hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """HU as about -1 to 1, on the grey steps that the picture had (8 bits)."""
    levels = np.unique(patch.hu)
    step = float(np.diff(levels).min())
    seen = levels[0] + np.rint((hu - levels[0]) / step) * step
    return np.asarray(np.clip((seen - MIDDLE_HU) / HALF_WIDTH_HU, -1, 1), np.float32)


@click.command()
@click.argument("patches", type=click.Path(path_type=Path, exists=True))
@click.argument("volumes", type=click.Path(path_type=Path, exists=True))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for windows and sheets.")
@click.option("--erased", type=click.Path(path_type=Path), help="Erased pictures (.npz); default: OUT/erased.npz.")
@click.option("--limit", type=int, help="At most so many pairs.")
@click.option("--epochs", default=EPOCHS, show_default=True, help="Of the network.")
@click.option("--whole", is_flag=True, help="Read whole pictures with and without a lesion more, nothing else.")
@click.option("--sheet", "sheet_file", type=click.Path(path_type=Path), help="JPEG of windows to write; reads nothing.")
def main(
    patches: Path,
    volumes: Path,
    out: Path,
    erased: Path | None,
    limit: int | None,
    epochs: int,
    whole: bool,
    sheet_file: Path | None,
) -> None:
    """Prints the table as Markdown; the windows are kept in OUT/windows.npz and used again."""
    import torch

    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "windows.npz"
    if not kept.is_file():
        aside = kept.with_suffix(".part.npz")
        np.savez_compressed(aside, **windows(load_erased(patches, erased or out / "erased.npz")[0], volumes, limit))
        aside.replace(kept)
    with np.load(kept, allow_pickle=False) as packed:
        seen = {name: packed[name] for name in packed.files}
    patients = seen.pop("patients")
    if sheet_file is not None:
        sheet({way: seen[way] for way in ("real", *WAYS)}, sheet_file)
        return
    click.echo(f"{len(set(patients))} pairs\n\n{HEAD}")
    begun = time.process_time()
    if whole:
        found = picture_reader(seen["real, whole"], seen["better, whole"], patients, patients, 0, epochs=epochs)
        click.echo(row("untouched, better besides", found))
        return
    click.echo(control(seen["real"], patients, epochs=epochs))
    for way in WAYS:
        found = picture_reader(seen["real"], seen[way], patients, patients, 0, epochs=epochs)
        click.echo(row(f"real, {way}", found))
        if found.reading.auc > TOLD:
            where_it_looked(seen["real"], seen[way], found, out / f"saliency-{way}.png")
    found = picture_reader(covered(seen["real"]), covered(seen["better"]), patients, patients, 0, epochs=epochs)
    click.echo(row("real, better, both covered", found))
    click.echo(f"\n{time.process_time() - begun:.0f} CPU s for all")


def windows(
    items: list[ErasedPatch], volumes: Path, limit: int | None
) -> dict[str, NDArray[np.float32] | NDArray[np.str_]]:
    """Of each way `[n, 48, 48]`, of whole pictures `[n, 128, 128]`, and the host's patient."""
    one_each = list({item.patch.patient_id: item for item in items}.values())
    donors = [entry(one, f"donor-{k}") for k, one in enumerate(map(judge, nodules(volumes))) if one is not None]
    rng = np.random.default_rng(SEED)
    made, patients = [], []
    for item, donor in pairs(one_each, donors)[:limit]:
        try:
            made.append(composed(item, donor, rng))
        except HiResMedSynthError as error:
            click.echo(f"{item.patch.patient_id}: {error.what}", err=True)
            continue
        patients.append(item.patch.patient_id)
    return {**{way: np.stack([one[way] for one in made]) for way in made[0]}, "patients": np.array(patients)}


if __name__ == "__main__":
    main()
