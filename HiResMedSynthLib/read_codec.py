"""The decoder that a compressed DICOM picture is given to: one that refuses what is damaged and doesn't crash on it.

GDCM ends the whole process where a code stream contradicts the header. It is asked only where nothing else can decode
(lossless JPEG, JPEG of 12 bits), and only when the two agree.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SAFE_PLUGINS = ("pylibjpeg", "pyjpegls", "pydicom", "pillow")  # of pydicom, in the order in which they are tried
FRAME_HEADERS = (0xC0, 0xC1, 0xC2, 0xC3)  # SOF0 to SOF3: ITU-T T.81, table B.1


def decoded_pixels(data: Any, *, index: int | None = None, **options: Any) -> NDArray[Any]:
    """`pydicom.pixels.pixel_array` by the safest decoder that can; `[row, column]` or `[frame, row, column]`.

    Args:
        data: the data set, with pixels and transfer syntax.
        index: of the frame; None: all.
        options: of `pixel_array`.

    Raises:
        Exception: whatever the decoder raises.
    """
    from pydicom.pixels import get_decoder, pixel_array

    syntax = data.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return np.asarray(pixel_array(data, index=index, **options))
    plugins = get_decoder(syntax).available_plugins
    names = [name for name in SAFE_PLUGINS if name in plugins]
    failure: Exception = ValueError("no decoder can be given it")
    for name in (*names, "gdcm"):
        if name == "gdcm" and ("gdcm" not in plugins or not _agrees(data)):
            continue
        try:
            return np.asarray(pixel_array(data, index=index, decoding_plugin=name, **options))
        except Exception as error:  # each decoder has its own kinds of failure
            failure = error
    raise failure


def _agrees(data: Any) -> bool:
    """Whether each frame is a JPEG stream of the size and depth that the header tells."""
    from pydicom.encaps import generate_frames

    allocated, stored = int(data.BitsAllocated), int(data.BitsStored)
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        return False
    frames = int(data.get("NumberOfFrames") or 1)
    told = [_frame_header(stream) for stream in generate_frames(data.PixelData, number_of_frames=frames)]
    size = (int(data.Rows), int(data.Columns), 1)
    return all(one is not None and one[1:] == size and stored <= one[0] <= allocated for one in told)


def _frame_header(stream: bytes) -> tuple[int, int, int, int] | None:
    """(precision, rows, columns, components) of a JPEG stream, None where it has no frame header: T.81, B.2.2."""
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 9 < len(stream) and stream[at] == 0xFF:
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4], "big")
        if marker in FRAME_HEADERS:
            size = int.from_bytes(stream[at + 5 : at + 7], "big"), int.from_bytes(stream[at + 7 : at + 9], "big")
            return stream[at + 4], *size, stream[at + 9]
        at += 2 + length
    return None
