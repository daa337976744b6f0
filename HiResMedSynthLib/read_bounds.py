"""Files that would make a library crash or fill the memory before it could tell: refused by their first bytes."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from HiResMedSynthLib.errors import ReadError

DEFLATED = b"1.2.840.10008.1.2.1.99"  # Deflated Explicit VR Little Endian, PS3.5 A.5
META_BYTES = 2**16  # the file's own header ends before
LARGEST_INFLATED = 2**28  # bytes; pydicom holds all of it at once
LONGEST_NRRD_LINE = 900  # bytes; ITK copies a line that it can't read into a buffer of 1 KiB
NRRD_HEADER_BYTES = 2**20
METAIMAGE_PLACES = (
    b"TransformMatrix",
    b"Orientation",
    b"Rotation",
    b"Offset",
    b"Position",
    b"Origin",
    b"ElementSpacing",
)


def refuse_deflated_bomb(path: Path) -> None:
    """Refuses a deflated DICOM file that unpacks to more than `LARGEST_INFLATED`; nothing else is judged.

    Raises:
        ReadError: it does.
    """
    with path.open("rb") as stream:
        if DEFLATED not in stream.read(META_BYTES):
            return
        from pydicom.filereader import read_dataset, read_preamble

        stream.seek(0)
        read_preamble(stream, force=True)
        meta = read_dataset(stream, False, True, stop_when=lambda tag, _vr, _n: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") != DEFLATED.decode():  # a DICOMDIR names that of others
            return
        inflater, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
        while (packed := stream.read(2**14)) and size <= LARGEST_INFLATED:
            size += len(inflater.decompress(packed))
    if size > LARGEST_INFLATED:
        raise ReadError(
            f"it unpacks to more than {LARGEST_INFLATED // 2**20} MiB",
            where=path,
            remedy="Convert it to uncompressed DICOM first (gdcmconv --raw), if it really is that large.",
        )


def breaks_itk(path: Path) -> bool:
    """Whether the header of an NRRD or MetaImage file is damaged in a way on which ITK crashes."""
    return nrrd_line_too_long(path) or _metaimage_numbers_cannot_be(path)


def _metaimage_numbers_cannot_be(path: Path) -> bool:
    """Whether a file is MetaImage and its number of dimensions, or of compressed bytes, is none that can be."""
    with path.open("rb") as stream:
        if stream.read(10) != b"ObjectType":
            return False
        header = stream.read(META_BYTES).split(b"ElementDataFile", 1)[0]
    told = dict(re.findall(rb"(?m)^(\w+)[ \t]*[=:][ \t]*([^\r\n]*)", header))
    whole = re.fullmatch(rb"[1-9]\s*", told.get(b"NDims", b""))
    whole = whole and re.fullmatch(rb"\d{1,13}\s*", told.get(b"CompressedDataSize", b"0"))
    places = b" ".join(told.get(name, b"") for name in METAIMAGE_PLACES)
    return not whole or re.search(rb"(?i)nan|inf|e\+?0*[1-9]\d|(?<![\d.])\d{13}", places) is not None


def nrrd_line_too_long(path: Path) -> bool:
    """Whether a file is NRRD and a field of its header is longer than any that is one, so that ITK might crash on it.

    Lines of comments (#) and of key:=value pairs may be of any length.
    """
    with path.open("rb") as stream:
        if stream.read(4) != b"NRRD":
            return False
        header = re.split(rb"\r?\n\r?\n", stream.read(NRRD_HEADER_BYTES), maxsplit=1)[0]
    lines = (line for line in header.split(b"\n") if not line.startswith(b"#") and b":=" not in line)
    return any(len(line) > LONGEST_NRRD_LINE for line in lines)
