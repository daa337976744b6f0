"""What the benchmark of use trains on: real lung pictures, and the same with lesions put in by four ways.

Training patients are dealt out into cells. A control's donor and host come from one cell, so that any union of cells
is a smaller site with all that could be made there; the composed lesions come from the shipped bank, less the entries
of patients that are tested on. The host's own lesion is erased (Training/erased_pairs.py); all ways use the same
healthy places of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.case import HALF, CaseSettings, LesionRequest
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError
from HiResMedSynthLib.ground import Ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.lesion.bank import Bank, load_bank
from HiResMedSynthLib.patient_split import chooses, fold_of
from HiResMedSynthLib.placement.danger_map import DangerMap
from HiResMedSynthLib.placement.margins import Margins
from Training.controls import carve_mixed, copy_pasted
from Training.erased_pairs import ErasedPatch, paint
from Training.location_data import LungPatch

CELLS = 20  # a tenth of the patients is two of them
EACH = 6  # lesions put into each host, one a picture
TRIES = 10
WAYS = ("composed", "bank-pasted", "copy-paste", "carvemix")
SLICE_MM = 2.0  # thickness that a picture is taken for: its table doesn't tell
LARGER, SPREAD = 1.1, 1.25  # of the host's own lesion: so the composed ones have its dense area; spread about it
TYPES = {"solid": 0.76, "calcified": 0.11, "ground-glass": 0.07, "part-solid": 0.06}  # of 477 nodules of LIDC-IDRI
SEED = 15


@dataclass(frozen=True, kw_only=True, eq=False)
class Material:
    """Pictures by side.

    Args:
        cells: patients' names of each cell.
        real: of training patients, by patient.
        made: by way and patient.
        choosing, testing: real pictures of the other patients.
    """

    cells: tuple[tuple[str, ...], ...]
    real: dict[str, LungPatch]
    made: dict[str, dict[str, list[LungPatch]]]
    choosing: tuple[LungPatch, ...]
    testing: tuple[LungPatch, ...]


def training_bank() -> Bank:
    """The shipped bank without the lesions of patients that are tested on or choose."""
    bank = load_bank()
    kept = {
        name: card
        for name, card in bank.cards.items()
        if card.patient_id and fold_of(card.patient_id) != 0 and not chooses(card.patient_id)
    }
    return replace(bank, cards=kept)


def healthy(item: ErasedPatch) -> LungPatch:
    """The picture with its lesion erased; `lesion` still tells where and how large it was."""
    hu = item.patch.hu.copy()
    paint(hu, item.true)
    return replace(item.patch, hu=hu)


def material(items: list[ErasedPatch], cache: Path) -> Material:
    """All of it; what was composed is kept in `cache` (.npz), which later changes of the composer don't touch."""
    one_each = {item.patch.patient_id: item for item in items}
    outside = {name for name in one_each if fold_of(name) == 0 or chooses(name)}
    training = {name: item for name, item in one_each.items() if name not in outside}
    names = np.random.default_rng(SEED).permutation(sorted(training))
    cells = tuple(tuple(str(name) for name in names[k::CELLS]) for k in range(CELLS))
    if not cache.is_file():
        _write(cache, training, cells)
    return Material(
        cells=cells,
        real={name: item.patch for name, item in training.items()},
        made=_read(cache, training),
        choosing=tuple(one_each[name].patch for name in sorted(outside) if fold_of(name) != 0),
        testing=tuple(one_each[name].patch for name in sorted(outside) if fold_of(name) == 0),
    )


def put_in(
    item: ErasedPatch, donors: list[LungPatch], bank: Bank, rng: np.random.Generator, seed: int
) -> Iterator[tuple[str, LungPatch]]:
    """(way, picture) of a host; a place where a way finds no room is left out."""
    host = healthy(item)
    ground = ground_of(host)
    for place in _places(item, rng):
        yield from _composed(host, ground, place, bank, seed + int(rng.integers(1 << 20)), rng)
        for way, paste in (("copy-paste", copy_pasted), ("carvemix", carve_mixed)):
            tries = (paste(host, donors[rng.integers(len(donors))], place, rng) for _ in range(TRIES))
            made = next((one for one in tries if one is not None), None)
            if made is not None:
                yield way, made


def _places(item: ErasedPatch, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Healthy places of the picture, as far from its border as the lesion's own width where there are any."""
    centres = [item.shams[k].centre for k in rng.permutation(len(item.shams))]
    width, side = 2 * np.sqrt(item.patch.lesion.sum() / np.pi), len(item.patch.hu)
    inner = [place for place in centres if min(*place, side - max(place)) > width]
    return (inner or centres)[:EACH]


def ground_of(host: LungPatch) -> Ground:
    """The picture as a single slice on which every place is permitted."""
    image = MedicalImage(
        pixels=np.rint(host.hu).astype(np.int16)[np.newaxis], modality="CT", units="HU",
        pixel_spacing_mm=(host.spacing_mm, host.spacing_mm), spacing_source="header", slice_thickness_mm=SLICE_MM,
        positions_lps_mm=np.zeros((1, 3)),
    )  # fmt: skip
    nothing = DangerMap(labels=np.zeros(image.shape, np.uint8), names={}, method="rule: the place is given")
    return Ground(image=image, domain="lung-ct", margins=Margins(), danger_map=nothing)


def _composed(
    host: LungPatch, ground: Ground, place: tuple[float, float], bank: Bank, seed: int, rng: np.random.Generator
) -> Iterator[tuple[str, LungPatch]]:
    """The library's way, and the same lesion's voxels pasted without a matte or a fit."""
    own = 2 * np.sqrt(host.lesion.sum() / np.pi) * host.spacing_mm * LARGER
    size = float(own * np.exp(rng.uniform(-1, 1) * np.log(SPREAD)))
    kind = str(rng.choice(list(TYPES), p=list(TYPES.values())))
    request = LesionRequest(place=(0.0, *place), type=kind, size_mm=(size, size))  # type: ignore[arg-type]
    for way, fusion in (("composed", "better"), ("bank-pasted", "alpha")):
        settings = CaseSettings(requests=(request,), domain="lung-ct", fusion=fusion)  # type: ignore[arg-type]
        try:
            case = draw_case(ground.image, settings, seed, bank=bank, ground=ground)
        except HiResMedSynthError:
            continue
        composition = compose(ground.image, case)
        shown = composition.instance_mask[0] > 0
        if way == "composed":
            pixels, touched = composition.image.pixels[0], composition.alpha[0] > 0
        else:
            lesion, pixels = case.lesions[0], ground.image.pixels.copy()
            np.copyto(pixels[lesion.region], lesion.intensity, where=lesion.alpha >= HALF)
            pixels, touched = pixels[0], shown
        step = float(np.diff(np.unique(host.hu)).min())  # the pictures had 8 bits: made pixels get their steps
        hu = np.where(touched, np.rint(pixels / step) * step, host.hu).astype(np.float32)
        yield way, replace(host, hu=hu, lesion=shown)


def _write(cache: Path, training: dict[str, ErasedPatch], cells: tuple[tuple[str, ...], ...]) -> None:
    bank = training_bank()
    names: list[tuple[str, str]] = []
    hu: list[NDArray[np.int16]] = []
    lesions: list[NDArray[np.uint8]] = []
    for number, cell in enumerate(cells):
        for index, name in enumerate(cell):
            rng = np.random.default_rng((SEED, number, index))
            donors = [training[other].patch for other in cell if other != name]
            for way, made in put_in(training[name], donors, bank, rng, 1000 * number + index):
                names.append((way, name))
                hu.append(np.rint(made.hu).astype(np.int16))
                lesions.append(np.packbits(made.lesion))
        click.echo(f"cell {number + 1} of {len(cells)}: {len(names)} pictures")
    aside = cache.with_suffix(".part.npz")
    np.savez(
        aside, names=json.dumps(names), bank=json.dumps(sorted(bank.cards)), hu=np.stack(hu), lesion=np.stack(lesions)
    )
    aside.replace(cache)


def _read(cache: Path, training: dict[str, ErasedPatch]) -> dict[str, dict[str, list[LungPatch]]]:
    with np.load(cache, allow_pickle=False) as packed:
        names, hu, lesions = json.loads(str(packed["names"])), packed["hu"], packed["lesion"]
    made: dict[str, dict[str, list[LungPatch]]] = {way: {name: [] for name in training} for way in WAYS}
    for (way, name), pixels, lesion in zip(names, hu, lesions, strict=True):
        shown = np.unpackbits(lesion, count=pixels.size).reshape(pixels.shape).astype(bool)
        made[way][name].append(replace(training[name].patch, hu=pixels.astype(np.float32), lesion=shown))
    return made
