"""Erased pictures of a folder, kept between runs: erasing takes minutes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.aside import written_aside
from HiResMedSynthLib.errors import PlacementError, ReadError
from Training.erased_pairs import ERASING, SEED, SHAMS, ErasedPatch, Erasure, erased
from Training.location_data import LungPatch, load_patches
from Training.site_material import is_site_folder, lung_patches

FILL, RING = ("rows", "columns", "fill"), ("ring_rows", "ring_columns", "haze")


def load_erased(folder: Path, cache: Path, *, shams: int = SHAMS) -> tuple[list[ErasedPatch], dict[str, int]]:
    """The erased pictures of a folder of patches or of a site, and why others were left out; kept in `cache` (.npz).

    Raises:
        ReadError: see `load_patches`, for a site's own folder Training/site_data.py; or nothing is left.
    """
    patches, left_out = (lung_patches(folder), {}) if is_site_folder(folder) else load_patches(folder)
    if cache.is_file():
        kept = _stored(cache, patches)
        if kept is not None:
            return kept, left_out | _reasons(cache)
    made: list[ErasedPatch] = []
    reasons: dict[str, int] = {}
    for index, patch in enumerate(patches):
        try:
            made.append(erased(patch, np.random.default_rng((SEED, index)), shams=shams))
        except PlacementError as problem:
            why = str(problem).split(".")[0]
            reasons[why] = reasons.get(why, 0) + 1
    if len({item.patch.patient_id for item in made}) < 2:
        raise ReadError(
            f"Of {len(patches)} pictures fewer than two patients' could be erased ({reasons})", where=folder,
            remedy="Lesions must lie in lung, with lung around them.",
        )  # fmt: skip
    _store(cache, patches, made, reasons)
    return made, left_out | reasons


def _key(patches: list[LungPatch]) -> str:
    digest = hashlib.sha256(ERASING.encode())
    for patch in patches:
        for values in (patch.hu, patch.lung, patch.lesion):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _store(cache: Path, patches: list[LungPatch], made: list[ErasedPatch], reasons: dict[str, int]) -> None:
    every = [place for item in made for place in (item.true, *item.shams)]
    number = {id(patch): index for index, patch in enumerate(patches)}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(cache) as aside, aside.open("wb") as stream:
        np.savez(
            stream, key=_key(patches), reasons=json.dumps(reasons),
            patch=[number[id(item.patch)] for item in made], shams=[len(item.shams) for item in made],
            apart_mm=[item.apart_mm for item in made], fits=np.stack([item.fits for item in made]).astype(np.float16),
            centre=[place.centre for place in every], length=[len(place.fill) for place in every],
            ring=[len(place.haze) for place in every],
            **{name: np.concatenate([getattr(place, name) for place in every]) for name in (*FILL, *RING)},
        )  # fmt: skip


def _reasons(cache: Path) -> dict[str, int]:
    with np.load(cache, allow_pickle=False) as stored:
        told: dict[str, int] = json.loads(str(stored["reasons"]))
    return told


def _stored(cache: Path, patches: list[LungPatch]) -> list[ErasedPatch] | None:
    """What `_store` wrote; None where it was made of other pictures."""
    with np.load(cache, allow_pickle=False) as packed:
        stored = {name: packed[name] for name in packed.files}
    if str(stored["key"]) != _key(patches):
        return None
    places = [
        Erasure(
            centre=(float(centre[0]), float(centre[1])),
            **{name: stored[name][inside] for name in FILL},
            **{name: stored[name][around] for name in RING},
        )
        for centre, inside, around in zip(
            stored["centre"], _parts(stored["length"]), _parts(stored["ring"]), strict=True
        )
    ]
    made, first = [], 0
    for index, number in enumerate(stored["patch"]):
        count = int(stored["shams"][index])
        true, shams = places[first], tuple(places[first + 1 : first + 1 + count])
        made.append(
            ErasedPatch(
                patch=patches[number], true=true, shams=shams, fits=stored["fits"][index].astype(np.float32),
                apart_mm=float(stored["apart_mm"][index]),
            )
        )  # fmt: skip
        first += 1 + count
    return made


def _parts(lengths: NDArray[np.int64]) -> list[slice]:
    """Where each of joined arrays of those lengths lies."""
    return [slice(int(end - length), int(end)) for length, end in zip(lengths, np.cumsum(lengths), strict=True)]
