"""PNG, TIFF, JPEG and JPEG 2000 -> MedicalImage, by Pillow. Grey only; their DPI is no pixel spacing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.read_quietly import without_warnings
from HiResMedSynthLib.synthetic_words import told_by_text

ORIENTATION_TAG = 0x0112
PHOTOMETRIC_TAG, MIN_IS_WHITE = 262, 0  # TIFF 6.0, section 3
GREY_MODES = {"L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "1": "uint8"}


def read_picture(path: Path) -> MedicalImage:
    """The picture, modality OT, spacing unknown, stored values as they are.

    Raises:
        ReadError: damaged, in colour, or of a depth that radiology doesn't use.
    """
    from PIL import Image, UnidentifiedImageError

    oddities = []
    try:
        with without_warnings(), Image.open(path) as picture:
            if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):  # Pillow warns up to twice that
                _refuse_size(path)
            kind = picture.format or "picture"
            if getattr(picture, "n_frames", 1) > 1:
                oddities.append("the file holds several pages, the first was taken")
            if kind == "PNG":
                _refuse_16_bit_colour(picture, path)
            if kind == "TIFF":
                _refuse_turned(picture, path)
            pixels = _upright(_grey(picture, path, oddities), picture, oddities)
            oddities += told_by_text(" ".join(str(value) for value in picture.info.values()))
            tags = getattr(picture, "tag_v2", {})
            # Pillow inverts 8-bit pictures of this kind itself, 16-bit ones it leaves as stored
            inverse = picture.mode.startswith("I;16") and tags.get(PHOTOMETRIC_TAG) == MIN_IS_WHITE
    except Image.DecompressionBombError as error:
        _refuse_size(path, error)
    except UnidentifiedImageError as error:
        raise _damaged(path, "unknown format") from error
    except ReadError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever they meet in a damaged file
        raise _damaged(path, str(error)) from error
    if kind == "JPEG":
        oddities.append("lossy JPEG: fine detail and noise are altered")
    return MedicalImage(
        pixels=pixels,
        modality="OT",
        facts=HeaderFacts(lossy_image_compression="01" if kind == "JPEG" else None),
        photometric="MONOCHROME1" if inverse else "MONOCHROME2",
        bits_stored=None if pixels.dtype.kind == "f" else 8 * pixels.dtype.itemsize,
        stored_signed=pixels.dtype.kind == "i",
        oddities=tuple(oddities),
    )


def _refuse_16_bit_colour(picture: Any, path: Path) -> None:
    """Pillow cuts these to 8 bits without a word; the depth is in the header chunk (PNG specification, 11.2.1)."""
    with path.open("rb") as stream:
        depth = stream.read(25)[-1]
    if depth == 16 and picture.mode in ("RGB", "RGBA", "LA"):
        raise ReadError(
            "16-bit PNG with several channels is not read", where=path, remedy="Convert it to 16-bit grey first."
        )


def _grey(picture: Any, path: Path, oddities: list[str]) -> NDArray[Any]:
    """Pixels `[row, column]` of a grey picture; colour with three equal channels counts as grey."""
    mode = picture.mode
    if mode in GREY_MODES:
        pixels = np.asarray(picture)
        return pixels.astype(GREY_MODES[mode]) * (255 if mode == "1" else 1)
    if mode == "I":
        pixels = np.asarray(picture)
        if pixels.min() >= 0 and pixels.max() <= 65535:
            return pixels.astype(np.uint16)
        return pixels.astype(np.int32)
    if mode == "F":
        pixels = np.asarray(picture).astype(np.float32)
        if not np.isfinite(pixels).all():
            raise ReadError("its pixels contain NaN or infinite values", where=path, remedy="Replace them first.")
        return pixels
    if mode in ("RGB", "RGBA", "LA", "P"):
        channels = np.asarray(picture.convert("RGB"))
        if (channels == channels[..., :1]).all():
            oddities.append(f"stored as {mode}, all channels equal: taken as grey")
            return np.ascontiguousarray(channels[..., 0])
        raise ReadError("this is a colour picture", where=path, remedy="Convert it to grey (8 or 16 bit) first.")
    raise ReadError(f"pictures of kind '{mode}' are not read", where=path, remedy="Convert it to grey, 8 or 16 bit.")


def _upright(pixels: NDArray[Any], picture: Any, oddities: list[str]) -> NDArray[Any]:
    """The pixels turned and mirrored as viewers show them: by the EXIF orientation (CIPA DC-008, tag 0x0112)."""
    try:
        orientation = picture.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # whatever Pillow meets in a damaged block; that of the pixels is whole
        return pixels
    if orientation not in range(2, 9):
        return pixels
    oddities.append(f"turned upright, as its EXIF orientation ({orientation}) says and viewers show it")
    if orientation >= 5:
        pixels = pixels.T
    # 2, 3, 7, 8 mirror what is left for right; 3, 4, 6, ... upper for lower
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(pixels[rows, columns])


def _refuse_turned(picture: Any, path: Path) -> None:
    """Pillow 13 stretches TIFF pictures of these orientations."""
    if picture.tag_v2.get(ORIENTATION_TAG) in (5, 6, 7, 8):
        raise ReadError("its orientation tag turns it by 90 degrees", where=path, remedy="Save it upright first.")


def _refuse_size(path: Path, cause: Exception | None = None) -> NoReturn:
    raise ReadError("the picture is too large", where=path, remedy="Give one below 89 megapixels.") from cause


def _damaged(path: Path, why: str) -> ReadError:
    return ReadError(
        f"the picture is damaged or cut off ({why})", where=path, remedy="Copy it anew from its source, or convert it."
    )
