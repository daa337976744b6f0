"""Images as the panel sends them."""

from __future__ import annotations

import dataclasses

import numpy as np

from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.service.protocol import ImageHeader


def header_of(image: MedicalImage) -> ImageHeader:
    """The header of an image for the protocol."""
    assert image.positions_lps_mm is not None
    names = {f.name for f in dataclasses.fields(ImageHeader)} & {f.name for f in dataclasses.fields(MedicalImage)}
    fields = {name: getattr(image, name) for name in names}
    fields["positions_lps_mm"] = np.asarray(image.positions_lps_mm).tolist()
    fields["directions_lps"] = np.asarray(image.directions_lps).tolist()
    fields["window"] = None if image.window is None else (image.window.center, image.window.width)
    fields["facts"] = dataclasses.asdict(image.facts)
    return ImageHeader(**fields)
