"""What client and server agree on: names, dataclasses, and arrays as npz. numpy only: Slicer's process imports this."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

PROTOCOL_VERSION = 1
TOKEN_VARIABLE = "HIRESMEDSYNTH_TOKEN"  # the name of an environment variable, no secret
ARRAYS_TYPE, JSON_TYPE, BYTES_TYPE, ZIP_TYPE = (
    "application/x-npz",
    "application/json",
    "application/octet-stream",
    "application/zip",
)
LARGEST_BODY = 2 * 2**30  # bytes of one request
LARGEST_ARRAYS = 4 * 2**30  # bytes of the arrays in one npz, unpacked
MOST_ARRAYS = 20_000
JobState = Literal["queued", "running", "done", "failed", "cancelled"]
JobKind = Literal[
    "inspect",
    "danger",
    "prior",
    "candidates",
    "compose",
    "export",
    "cut_lesion",
    "generate",
    "reconstruct",
    "save_annotations",
    "load_annotations",
    "bank",
    "models",
]


@dataclass(frozen=True, kw_only=True)
class ErrorInfo:
    """An error as a person reads it."""

    what: str
    remedy: str
    where: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """How far a job is. `notes` are things that a reader should know (a retry on the CPU, say)."""

    id: str
    kind: JobKind
    state: JobState
    done: int = 0
    total: int = 0
    message: str = ""
    notes: tuple[str, ...] = ()
    error: ErrorInfo | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> JobStatus:
        """The status in a server's answer."""
        error = document.get("error")
        fields = dict(document, notes=tuple(document.get("notes", ())), error=ErrorInfo(**error) if error else None)
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """All of a `MedicalImage` but its pixels, in plain values.

    `positions_lps_mm` holds a point a slice, `directions_lps` the two unit vectors; `facts` are HeaderFacts by name.
    `tags`: for a volume that was loaded from DICOM, one mapping a slice: allow-listed keyword -> text.
    """

    modality: str
    units: str
    pixel_spacing_mm: tuple[float, float] | None
    spacing_source: str
    positions_lps_mm: list[list[float]]
    directions_lps: list[list[float]]
    slice_thickness_mm: float | None = None
    photometric: str = "MONOCHROME2"
    rescale: tuple[float, float] = (1.0, 0.0)
    bits_stored: int | None = None
    stored_signed: bool = False
    padding_value: float | None = None
    window: tuple[float, float] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    oddities: tuple[str, ...] = ()
    tags: tuple[dict[str, str], ...] = ()


class ProtocolError(ValueError):
    """Bytes that are not what the protocol says."""


def pack_arrays(arrays: Mapping[str, NDArray[Any]], document: Any = None) -> bytes:
    """Arrays and a JSON document as npz bytes (the document under the name `json`)."""
    return packed_stream(arrays, document).getvalue()


def packed_stream(arrays: Mapping[str, NDArray[Any]], document: Any = None) -> io.BytesIO:
    """The same as a stream, which is sent in blocks and never copied whole."""
    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(document).encode(), dtype=np.uint8)
    np.savez(stream, **{"json": text, **arrays})  # type: ignore[arg-type]
    stream.seek(0)
    return stream


def unpack_arrays(data: bytes) -> tuple[dict[str, NDArray[Any]], Any]:
    """(arrays, document) of npz bytes; never unpickles, and looks at the sizes before it reads.

    Raises:
        ProtocolError: no npz, too many or too large arrays, objects instead of numbers, or no JSON document.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
        names = {entry.filename for entry in entries}
        small = len(entries) <= MOST_ARRAYS and sum(entry.file_size for entry in entries) <= LARGEST_ARRAYS
        arrays, document = {}, None
        if small and len(names) == len(entries):
            with np.load(io.BytesIO(data), allow_pickle=False) as packed:
                arrays = {name: packed[name] for name in packed.files}
            document = json.loads(arrays.pop("json").tobytes())
    except Exception as error:  # zipfile, zlib and numpy each have their own kinds
        raise ProtocolError(f"the arrays can't be read ({type(error).__name__})") from error
    if not small or len(names) != len(entries):
        raise ProtocolError("the arrays are too many, too large, or two have the same name")
    # numpy hands out a member that is no .npy file as bytes
    if any(not isinstance(array, np.ndarray) or array.dtype.kind not in "iufb" for array in arrays.values()):
        raise ProtocolError("the arrays hold something other than numbers")
    return arrays, document


def inverted_sum(tags: Mapping[str, str]) -> int | None:
    """What a stored value and the one that Slicer holds of it add up to, before the rescale; None where they are one.

    Slicer's reader (GDCM, as SimpleITK's) makes MONOCHROME2 of MONOCHROME1 while it loads a file.
    """
    if tags.get("PhotometricInterpretation") != "MONOCHROME1":
        return None
    return -1 if tags.get("PixelRepresentation") == "1" else 2 ** min(int(tags["BitsStored"]), 32) - 1


def image_name(pixels: NDArray[Any], header: Mapping[str, Any]) -> str:
    """Hash of pixels and header (as plain values): the same image always has the same name, on both sides."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(f"{pixels.dtype.str} {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
