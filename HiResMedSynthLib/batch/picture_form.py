"""How the values of an image stand in 8- and 16-bit pictures: left-justified, so that the upper byte shows them too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.export.stored import StoredForm, stored_form
from HiResMedSynthLib.image import MedicalImage

HU_OFFSET, HU_BITS = 1024, 12
PICTURE_BITS = 16


@dataclass(frozen=True, kw_only=True)
class PictureForm:
    """The same for a pair of images.

    Args:
        stored: how pixels become whole numbers.
        low: the stored value that is 0 in the picture.
        bits: that the values above it need.
    """

    stored: StoredForm
    low: int
    bits: int


def picture_form(image: MedicalImage, *others: MedicalImage) -> PictureForm:
    """By the depth that the header tells; where that is 16 bits or nothing, by what the values of all images need.

    A file of 16 bits tells the size of its numbers, not their range: films of 12 bits come in PNG of 16, and MR uses a
    few hundred of them.
    """
    form = stored_form(image, *others)
    low = form.limits[0]
    if form.bits_stored < PICTURE_BITS or image.units == "HU":
        return PictureForm(stored=form, low=low, bits=form.bits_stored)
    ends = np.concatenate([form.store(np.array([one.pixels.min(), one.pixels.max()])) for one in (image, *others)])
    low = min(int(ends.min()), 0) if form.signed else low
    return PictureForm(stored=form, low=low, bits=max(8, (int(ends.max()) - low).bit_length()))


def left_justified(image: MedicalImage, form: PictureForm, index: int) -> NDArray[Any]:
    """A slice as uint16 `[row, column]`, uint8 where the source has 8 bits; bright = dense, the upper bits used."""
    pixels = image.pixels[index]
    if image.units == "HU":
        values = np.floor(pixels.astype(np.float64) + 0.5) + HU_OFFSET
        return np.asarray(np.clip(values, 0, 2**HU_BITS - 1).astype(np.uint16) << np.uint16(16 - HU_BITS))
    values = form.stored.store(pixels).astype(np.int32) - form.low
    if not image.bright_is_dense:
        values = (2**form.bits - 1) - values
    if form.stored.bits_stored <= 8:
        return np.asarray((values << (8 - form.bits)).astype(np.uint8))
    return np.asarray((values << (16 - form.bits)).astype(np.uint16))
