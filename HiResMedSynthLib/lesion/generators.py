"""Generators by name: where a new lesion comes from. Each takes one lesion's wish, the bank and its random stream.

deform: a bank entry, turned, stretched and bent (the default). singan: a sample of the network of one real lesion.
learned: a sample of one network over many lesions. Samples of networks are turned and flipped only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from HiResMedSynthLib import weights
from HiResMedSynthLib.choices import GENERATORS
from HiResMedSynthLib.errors import BankError, SettingsError
from HiResMedSynthLib.lesion.bank import OWN_SIZE, Bank
from HiResMedSynthLib.lesion.deform import Deformation, draw_deformation
from HiResMedSynthLib.lesion.lesion import Lesion
from HiResMedSynthLib.lesion.procedural import stone
from HiResMedSynthLib.lesion.trained import KIND, load_trained

if TYPE_CHECKING:
    from HiResMedSynthLib.lesion.learned import LearnedGenerator

LEARNED_KIND = "lesion-flow"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """One lesion that is wanted of a generator.

    Args:
        type: of a request: a lesion type, "any" or "juxtapleural".
        diameter_mm: of the sphere of equal volume.
        stone: it goes into an abdomen, where "any" means a stone.
        film: it is seen in projection.
        entry: bank entry to start from; None: drawn.
        rotation_degrees: in-plane turn; None: drawn.
        spiculation: readers' rating 1..5; None: as a bank entry of that type and size has it.
        diversity: strength of what varies the form; 1 as measured, 0 the source itself where there is one.
        flips: whether it may be mirrored.
    """

    type: str
    diameter_mm: float
    stone: bool = False
    film: bool = False
    entry: str | None = None
    rotation_degrees: float | None = None
    spiculation: float | None = None
    diversity: float = 1.0
    flips: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A lesion to render, how it is turned or bent, and the model it came from (plain values; empty for none)."""

    lesion: Lesion
    deformation: Deformation
    model: dict[str, str] = field(default_factory=dict)


class Generator(Protocol):
    """Where new lesions come from."""

    @property
    def identity(self) -> str:
        """Names the generator and the hashes of its models: the same identity draws the same lesions."""

    def draw(self, wish: Wish, bank: Bank, rng: np.random.Generator) -> Drawn:
        """A lesion for this wish; the same stream gives the same lesion."""


def generator_for(name: str, *, model: str | None = None, sha256: str | None = None) -> Generator:
    """The generator of that name.

    Args:
        name: one of `GENERATORS`.
        model: name of its model; None: one that fits (singan), the release's or the newest there is (learned);
            damaged ones are passed over.
        sha256: what the model's file has to be; None: as it is.

    Raises:
        SettingsError: no such generator, or one that uses no model.
        ModelError: the model is missing, damaged, or not the one of that hash.
    """
    if name not in GENERATORS:
        raise SettingsError(f"there is no generator '{name}'", remedy=f"Choose one of {', '.join(GENERATORS)}.")
    if name == "deform":
        if model is not None:
            raise SettingsError("the generator 'deform' uses no model", remedy="Leave the model out, or choose singan.")
        return Deform()
    kind = KIND if name == "singan" else LEARNED_KIND
    there = [weights.find(model, kind)] if model else _sound(kind)
    if not there:
        how = (
            "Train one: hiresmedsynth lesion train IMAGE --mask MASK."
            if name == "singan"
            else "Add one: hiresmedsynth models add FILE, or use --generator deform."
        )
        raise weights.ModelError(f"there is no model for the generator '{name}'", remedy=how)
    if sha256 is not None:
        there = [one for one in there if one.card.sha256 == sha256]
    if not there:
        raise weights.ModelError(
            f"the model '{model}' isn't the one that this case was drawn with (hash differs)",
            remedy="Put that model back (models add), or draw the lesion anew without its model's hash.",
        )
    if name == "singan":
        return SinganSamples(there)
    return Learned(max(there, key=lambda one: (one.shipped, one.card.created)))


def _sound(kind: str) -> list[weights.Model]:
    """The models of a kind whose files are as they were added; the first one's problem where none is.

    Raises:
        ModelError: there are some, all damaged.
    """
    sound, problems = [], []
    for one in weights.models(kind):
        try:
            sound.append(weights.find(one.card.name, kind))
        except weights.ModelError as problem:
            problems.append(problem)
    if problems and not sound:
        raise problems[0]
    return sound


class Deform:
    """Bank entries, deformed: the plain generator."""

    identity = "deform"

    def draw(self, wish: Wish, bank: Bank, rng: np.random.Generator) -> Drawn:
        """An entry of the wished type and about the size, or a procedural stone, with a drawn deformation."""
        lesion = self._source(wish, bank, rng)
        deformation = draw_deformation(rng, rotation_degrees=wish.rotation_degrees, strength=wish.diversity)
        return Drawn(lesion=lesion, deformation=_flipped(deformation, wish))

    def _source(self, wish: Wish, bank: Bank, rng: np.random.Generator) -> Lesion:
        if wish.stone and wish.entry is None:
            return stone(wish.diameter_mm)
        if wish.entry is None:
            types = bank.types_for(wish.type, film=wish.film)
            return bank.lesion(bank.choose(types=types, diameter_mm=wish.diameter_mm, rng=rng))
        lesion = bank.lesion(wish.entry)
        if lesion.card.type not in bank.types_for(wish.type):
            raise SettingsError(
                f"the bank's '{lesion.card.name}' is {lesion.card.type}, not {wish.type}",
                remedy="Leave the type out, or choose an entry of that type.",
            )
        return lesion


class SinganSamples:
    """Samples of networks of one lesion each."""

    def __init__(self, models: Sequence[weights.Model]) -> None:
        self.models = tuple(models)
        self.identity = _identity("singan", self.models)

    def draw(self, wish: Wish, bank: Bank, rng: np.random.Generator) -> Drawn:
        """A sample of the network whose source fits the wish, turned and flipped."""
        model = self._choose(wish, bank, float(rng.random()))
        trained = load_trained(model)
        lesion = trained.sample(rng, diversity=wish.diversity)
        deformation = _rigid(wish, rng)
        if trained.flat:  # its depth is a guess: seen from above only
            deformation = replace(deformation, tilt_degrees=(0.0, 0.0))
        return Drawn(lesion=lesion, deformation=deformation, model=_record("singan", model))

    def _choose(self, wish: Wish, bank: Bank, share: float) -> weights.Model:
        types = ("stone",) if wish.stone else bank.types_for(wish.type, film=wish.film)
        fitting = [model for model in self.models if model.card.details.get("type") in types]
        if wish.entry is not None:
            fitting = [m for m in fitting if wish.entry in (m.card.name, m.card.details.get("source"))]
        if not fitting:
            asked = f"of type {' or '.join(types)}" + (f" trained on '{wish.entry}'" if wish.entry else "")
            raise BankError(
                f"no SinGAN model {asked} is there", remedy="Train one (hiresmedsynth lesion train), or name another."
            )
        low, high = (wish.diameter_mm * part for part in OWN_SIZE)
        near = [model for model in fitting if low <= _diameter(model) <= high]
        if not near:
            near = sorted(fitting, key=lambda model: abs(np.log(_diameter(model) / wish.diameter_mm)))[:3]
        return near[int(share * len(near))]


class Learned:
    """Samples of one network over many lesions; they have no single source."""

    def __init__(self, model: weights.Model) -> None:
        self.model = model
        self.identity = _identity("learned", (model,))

    def draw(self, wish: Wish, bank: Bank, rng: np.random.Generator) -> Drawn:
        """A new lesion; a wish for "any" takes type and spiculation of a bank entry of about that size."""
        if wish.stone or wish.type == "stone":
            raise SettingsError(
                "the learned generator makes lung nodules, no stones", remedy="Use --generator deform for stones."
            )
        if wish.entry is not None:
            raise SettingsError(
                "the learned generator starts from no bank entry", remedy="Leave the entry out, or use deform."
            )
        types = bank.types_for(wish.type, film=wish.film)
        like = bank.cards[bank.choose(types=types, diameter_mm=wish.diameter_mm, rng=rng)]
        spiculation = like.spiculation if wish.spiculation is None else wish.spiculation
        ratings = {"spiculation": spiculation, "lobulation": like.lobulation}
        known = {name: value for name, value in ratings.items() if value is not None}
        network = _learned(self.model.path, self.model.card.sha256)
        lesion = network.sample(like.type, wish.diameter_mm, rng=rng, count=1, **known)[0]
        return Drawn(lesion=lesion, deformation=_rigid(wish, rng), model=_record("learned", self.model))


@lru_cache(maxsize=2)
def _learned(path: Path, _sha256: str) -> LearnedGenerator:
    from HiResMedSynthLib.lesion.learned import load_learned

    return load_learned(path)


def _rigid(wish: Wish, rng: np.random.Generator) -> Deformation:
    return _flipped(draw_deformation(rng, rotation_degrees=wish.rotation_degrees, strength=0.0), wish)


def _flipped(deformation: Deformation, wish: Wish) -> Deformation:
    return deformation if wish.flips else replace(deformation, flips=(False, False, False))


def _diameter(model: weights.Model) -> float:
    told: Any = model.card.details.get("diameter_mm")
    return float(told) if isinstance(told, int | float) and told > 0 else 10.0


def _identity(name: str, models: Sequence[weights.Model]) -> str:
    told = " ".join(f"{model.card.name}={model.card.sha256}" for model in models)
    return f"{name} {hashlib.sha256(told.encode()).hexdigest()}"


def _record(name: str, model: weights.Model) -> dict[str, str]:
    return {"name": name, "model": model.card.name, "model_sha256": model.card.sha256}
