"""What a domain's values -1..1 are in a stored image: grey values of a film, Hounsfield units of a CT slice."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.image import HeaderFacts, MedicalImage, SpacingSource, Window


@dataclass(frozen=True, kw_only=True)
class DomainValues:
    """One domain.

    Attributes:
        shows: in words, plural.
        modality: of the images made; an image of HU goes with a domain of HU.
        hounsfield: whether `low` and `high` are HU; else stored values of 16 bits.
        low, high: the stored values of -1 and 1.
        window: how an image of it is shown; None: low to high.
        by_size: whether an image is laid on the canvas by its size in mm; else its matrix fills it.
        few_patients: whether so few were learned from that new images are hardly new.
        facts: what a header may say of an image made.
    """

    shows: str
    modality: str
    hounsfield: bool = False
    low: float = 0.0
    high: float = 65535.0
    window: Window | None = None
    by_size: bool = True
    few_patients: bool = False
    facts: HeaderFacts = field(default_factory=lambda: HeaderFacts(burned_in_annotation="NO"))


LUNG_CT = DomainValues(
    shows="chest CT slices",
    modality="CT",
    hounsfield=True,
    low=-1200.0,
    high=600.0,
    window=Window(center=-600.0, width=1500.0),
    by_size=False,  # learned from native matrices of any pixel spacing
    few_patients=True,
    facts=HeaderFacts(body_part_examined="CHEST", burned_in_annotation="NO"),
)
FILM = DomainValues(shows="films", modality="CR")
CHEST_FILM = DomainValues(
    shows="chest films",
    modality="CR",
    facts=HeaderFacts(body_part_examined="CHEST", view_position="PA", burned_in_annotation="NO"),
)
KNOWN = {"cxr": CHEST_FILM, "lung-ct": LUNG_CT}


def values_of(domain: str) -> DomainValues:
    """The domain's values; a domain that isn't known holds films."""
    return KNOWN.get(domain, FILM)


def domain_like(image: MedicalImage) -> str:
    """The domain that an image belongs to by its units."""
    return "lung-ct" if image.units == "HU" else "cxr"


def image_of(
    values: DomainValues,
    film: NDArray[np.float32],
    *,
    spacing_mm: float | None,
    spacing_source: SpacingSource = "header",
) -> MedicalImage:
    """A film or slice [row, column] in -1..1 as int16 HU or uint16 grey, with its pixel spacing (None: unknown)."""
    stored = np.floor((film.astype(np.float64) + 1) / 2 * (values.high - values.low) + values.low + 0.5)
    middle, width = (values.low + values.high + 1) / 2, values.high - values.low + 1
    return MedicalImage(
        pixels=stored.astype(np.int16 if values.hounsfield else np.uint16),
        modality=values.modality,
        units="HU" if values.hounsfield else "stored",
        pixel_spacing_mm=None if spacing_mm is None else (spacing_mm, spacing_mm),
        spacing_source="unknown" if spacing_mm is None else spacing_source,
        bits_stored=16,
        stored_signed=values.hounsfield,
        window=values.window or Window(center=middle, width=width),
        facts=values.facts,
    )
