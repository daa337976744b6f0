"""Chest films made for a data set, near copies of training films drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from HiResMedSynthLib.batch.spec import GeneratedFilms
from HiResMedSynthLib.image import MedicalImage

if TYPE_CHECKING:
    from HiResMedSynthLib.background.make import WhyCopy
    from HiResMedSynthLib.weights import Model


def maker_of(wanted: GeneratedFilms) -> Model:
    """The model that makes those films.

    Raises:
        ModelError: it is missing or damaged.
    """
    from HiResMedSynthLib.background.find_model import find_background

    return find_background(wanted.model, None if wanted.model else "cxr")


class FilmMaker:
    """Makes films by one model, loaded once; a seed gives the same film."""

    def __init__(self, wanted: GeneratedFilms) -> None:
        from HiResMedSynthLib.background.find_model import load_background
        from HiResMedSynthLib.privacy import descriptors_of

        found = maker_of(wanted)
        self.wanted, self.model = wanted, load_background(found)
        descriptors = descriptors_of(found.card.name)
        self.why_copy: WhyCopy | None = None if descriptors is None else descriptors.why_copy

    def film(self, seed: int) -> MedicalImage:
        """The film of that seed."""
        from HiResMedSynthLib.background.make import generate

        made = generate(self.model, seed=seed, sex=self.wanted.sex, size=self.wanted.size, why_copy=self.why_copy)
        return made.image
