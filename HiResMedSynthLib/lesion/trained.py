"""A trained lesion: the SinGAN of one lesion and that lesion itself in one model file, so that it is a bank entry too.

So the file holds a patient's voxels: it is to be kept and shared as the image itself is.
The file is the network's own, with `source.alpha` (uint8) and `source.intensity_hu` (int16) beside its tensors and the
source's card in the header's entry `source` (JSON, the bank's format).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.lesion.bank import BANK_FORMAT, Bank, checked_card
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion, LesionCard
from HiResMedSynthLib.lesion.lesion_grid import crop_2d, from_grid, to_grid
from HiResMedSynthLib.lesion.own import is_synthetic
from HiResMedSynthLib.whole_tensors import read_tensors

if TYPE_CHECKING:
    from HiResMedSynthLib.lesion.singan import SinGan

KIND = "lesion-singan"
RUN_CHECKPOINT = "checkpoint.safetensors"  # of a training that was cut off
ORIGIN = "SinGAN sample of a real lesion"
SYNTHETIC_ORIGIN = "SinGAN sample of a lesion cut out of a synthetic image"
SAMPLES_TRIED = 4  # an empty sample is drawn again, from the same stream


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedLesion:
    """The network, the lesion it was trained on, and the voxel size of its samples."""

    network: SinGan
    source: Lesion
    voxel_mm: float

    @property
    def flat(self) -> bool:
        """Whether it was trained on a slice."""
        return self.network.dims == 2

    def sample(self, rng: np.random.Generator, *, diversity: float = 1.0) -> Lesion:
        """A new lesion of this kind; one trained on a slice is rounded in depth.

        Raises:
            BankError: the network made nothing but empty samples.
        """
        origin = SYNTHETIC_ORIGIN if is_synthetic(self.source.card) else ORIGIN
        card = dataclasses.replace(self.source.card, origin=origin)
        for attempt in range(SAMPLES_TRIED):
            try:
                return as_lesion(self.network.sample(rng, diversity=diversity), self.voxel_mm, card)
            except BankError:
                if attempt == SAMPLES_TRIED - 1:
                    raise
        raise AssertionError


def refuse_unfinished(name: str) -> None:
    """Refuses a lesion, of which there is no model yet, where its training was cut off and can go on.

    Raises:
        BankError.
    """
    if not weights.NAME_PATTERN.fullmatch(name):
        return
    if (weights.store_folder() / weights.RUNS / name / RUN_CHECKPOINT).is_file():
        raise BankError(
            f"the training of '{name}' isn't finished",
            remedy=f"Go on with the same hiresmedsynth lesion train ... --name {name} --resume.",
        )


def as_lesion(values: NDArray[np.floating], voxel_mm: float, card: LesionCard) -> Lesion:
    """A lesion of a grid `[2, slice, row, column]`, or of a slice `[2, row, column]` rounded in depth."""
    if values.ndim == 3:
        from HiResMedSynthLib.lesion.inflate import inflate

        values = np.pad(inflate(values), ((0, 0), (1, 1), (0, 0), (0, 0)))
    return from_grid(values, voxel_mm, card)


def training_values(lesion: Lesion, *, flat: bool) -> NDArray[np.float32]:
    """What a SinGAN is trained on: `[2, 32, 32, 32]`, or where `flat` the middle slice `[2, 64, 64]`."""
    return crop_2d(lesion) if flat else to_grid(lesion).values


def grid_voxel_mm(lesion: Lesion, values: NDArray[np.floating]) -> float:
    """Edge of a voxel of the values that `training_values` gave."""
    if values.ndim == 4:
        return to_grid(lesion, size=values.shape[1]).voxel_mm
    widest = float(np.max([plane.sum() for plane in lesion.alpha.astype(np.float64) / ALPHA_ONE]))
    return lesion.voxel_mm * float(np.sqrt(widest / max(float(values[1].sum()), 1.0)))


def write_trained(path: Path, network: SinGan, lesion: Lesion, card: weights.Card) -> None:
    """Writes the model file: network, lesion and card."""
    entry = {"format": BANK_FORMAT, "card": dataclasses.asdict(lesion.card), "voxel_mm": lesion.voxel_mm}
    network.save(
        path,
        metadata={"card": card.to_json(), "source": json.dumps(entry)},
        tensors={
            "source.alpha": np.round(lesion.alpha / 257.0).astype(np.uint8),
            "source.intensity_hu": np.ascontiguousarray(lesion.intensity_hu),
        },
    )


def load_trained(model: weights.Model) -> TrainedLesion:
    """The network and its source, kept for the next call.

    Raises:
        BankError: the file is of another version.
    """
    return _loaded(model.path, model.card.name, model.card.sha256)


@lru_cache(maxsize=8)
def _loaded(path: Path, name: str, _sha256: str) -> TrainedLesion:
    from HiResMedSynthLib.lesion.singan import SinGan

    source = _source(path, name)
    network = SinGan.load(path)
    return TrainedLesion(network=network, source=source, voxel_mm=grid_voxel_mm(source, network.values))


def source_of(model: weights.Model) -> Lesion:
    """The lesion that the model was trained on, under the model's name.

    Raises:
        BankError: the file holds none, or one of another version.
    """
    return _source(model.path, model.card.name)


def _source(path: Path, name: str) -> Lesion:
    again = f"Train it anew: hiresmedsynth lesion train IMAGE --mask MASK --name {name}."
    try:
        arrays, entry = read_tensors(path, "source", "np", under="source.")
        if entry.get("format") != BANK_FORMAT:
            raise BankError(f"the lesion in the model '{name}' is of another version", remedy=again)
        card = checked_card({**entry["card"], "name": name})
        return Lesion(
            intensity_hu=arrays["intensity_hu"],
            alpha=arrays["alpha"].astype(np.uint16) * np.uint16(257),
            voxel_mm=float(entry["voxel_mm"]),
            card=card,
        )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BankError(f"the model '{name}' holds no lesion ({type(error).__name__})", remedy=again) from error


def own_bank(names: tuple[str, ...]) -> Bank:
    """The source lesions of these models as a bank.

    Raises:
        BankError, ModelError: a model is missing, damaged or of another kind.
    """
    found = [weights.find(name, KIND) for name in names]
    lesions = [source_of(model) for model in found]
    arrays: dict[str, NDArray[Any]] = {}
    for lesion in lesions:
        arrays[f"{lesion.card.name}.alpha"] = np.round(lesion.alpha / 257.0).astype(np.uint8)
        arrays[f"{lesion.card.name}.intensity_hu"] = lesion.intensity_hu
    return Bank(
        cards={lesion.card.name: lesion.card for lesion in lesions},
        voxels_mm={lesion.card.name: lesion.voxel_mm for lesion in lesions},
        arrays=arrays,
        sha256=hashlib.sha256("".join(model.card.sha256 for model in found).encode()).hexdigest(),
    )
