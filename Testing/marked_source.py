"""DICOM files in which every text, UID, date and time is a marker, and a search for it in whatever was made."""

from __future__ import annotations

import base64
import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import pydicom
from pydicom import Dataset, Sequence
from pydicom.datadict import DicomDictionary
from pydicom.uid import UID

WORD = "ZQXJVWKPT"  # a valid code string, name, title and free text
DIGITS = "27182818284590"  # within every UID
UID_ROOT = f"1.2.276.{DIGITS}."
DATE, TIME = "19530607", "112233.445566"
NEEDED = {  # without these nothing is read as a picture
    "SpecificCharacterSet", "SOPClassUID", "Modality", "PhotometricInterpretation", "TransferSyntaxUID",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ModalityLUTSequence",
}  # fmt: skip
TEXTS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
FILLED = {**dict.fromkeys(TEXTS, WORD), "AS": "099Y", "DA": DATE, "DT": DATE + TIME, "TM": TIME}


def fill(data: Dataset) -> None:
    """Puts the marker into every text, UID, date and time of the standard's dictionary, and where that ends.

    Nested sequences, private groups, overlays, curves and the file's own header are filled too; pixels stay.
    """
    data.SpecificCharacterSet = "ISO_IR 192"
    for number, (tag, entry) in enumerate(sorted(DicomDictionary.items())):
        vr, multiplicity, _, _, keyword = entry
        if tag >> 16 in (0x0000, 0x0002, 0x0004, 0xFFFE) or not keyword or keyword in NEEDED:
            continue
        if vr in FILLED:
            data.add_new(tag, vr, FILLED[vr] if multiplicity in ("1", "1-n") else [FILLED[vr]] * 2)
        elif vr == "UI":
            data.add_new(tag, vr, f"{UID_ROOT}{number}")
        elif vr == "SQ":
            data.add_new(tag, vr, Sequence([nested(3 if number % 20 == 0 else 1)]))
    private = data.private_block(0x0009, f"{WORD} PRIVATE", create=True)
    private.add_new(0x01, "LO", WORD)
    private.add_new(0x02, "OB", f"raw {WORD} bytes ".encode())
    private.add_new(0x03, "SQ", Sequence([nested(2)]))
    for group in (0x5000, 0x6000, 0x601E):  # curves, overlays
        data.add_new((group, 0x0022), "LO", WORD)
        data.add_new((group, 0x1500), "LO", WORD)
        data.add_new((group, 0x3000), "OW", (WORD * 10).encode())
    meta = data.file_meta
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.ImplementationClassUID = UID(f"{UID_ROOT}1.1")
    meta.ImplementationVersionName = WORD
    meta.SourceApplicationEntityTitle = WORD
    meta.PrivateInformationCreatorUID = UID(f"{UID_ROOT}1.2")
    meta.PrivateInformation = f"{WORD} in the file's header".encode()
    data.preamble = WORD.encode().ljust(128, b"\0")


def nested(depth: int) -> Dataset:
    """An item with names, texts, UIDs, private elements and further items in it."""
    item = Dataset()
    item.PatientName = item.InstitutionName = WORD
    item.ReferencedSOPInstanceUID = f"{UID_ROOT}7"
    item.StudyDate = DATE
    item.private_block(0x0011, f"{WORD} INNER", create=True).add_new(0x01, "LT", WORD)
    if depth > 1:
        item.ReferencedStudySequence = Sequence([nested(depth - 1)])
    return item


def filled_copy(source: Path, target: Path) -> Path:
    """The same picture with the marker everywhere."""
    data = pydicom.dcmread(source)
    fill(data)
    target.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(target)
    return target


def traces_in(content: bytes) -> set[str]:
    """Names of the markers and encodings found in some bytes, in whatever is packed inside them too."""
    found = set()
    for blob in (content, *unpacked(content)):
        for name, needle in NEEDLES.items():
            if needle in blob:
                found.add(name)
    return found


def unpacked(content: bytes) -> Iterator[bytes]:
    """Every zlib and gzip stream in some bytes, inflated; the parts of a PNG's picture are joined first."""
    if content.startswith(b"\x89PNG"):
        parts, at = [], 8
        while at + 8 <= len(content):
            size = int.from_bytes(content[at : at + 4], "big")
            if content[at + 4 : at + 8] == b"IDAT":
                parts.append(content[at + 8 : at + 8 + size])
            at += 12 + size
        content = b"".join(parts) + content
    for magic, bits in ((b"\x1f\x8b\x08", 31), (b"\x78\x01", 15), (b"\x78\x9c", 15), (b"\x78\xda", 15)):
        at = content.find(magic)
        while at >= 0:
            with contextlib.suppress(zlib.error):
                yield zlib.decompressobj(bits).decompress(content[at:], 2**25)
            at = content.find(magic, at + 1)


def _needles() -> dict[str, bytes]:
    needles: dict[str, bytes] = {}
    for name, text in (("word", WORD), ("UID", DIGITS), ("date", DATE)):
        raw = text.encode()
        needles[name] = raw
        needles[f"{name}, lower case"] = raw.lower()
        needles[f"{name}, UTF-16"] = text.encode("utf-16-le")
        needles[f"{name}, UTF-16 big endian"] = text.encode("utf-16-be")
        needles[f"{name}, hex"] = raw.hex().encode()
        needles[f"{name}, HEX"] = raw.hex().upper().encode()
        for shift in range(3):  # whole groups of three bytes inside, whatever stands before
            inner = raw[(3 - shift) % 3 :]
            needles[f"{name}, base64 {shift}"] = base64.b64encode(inner[: len(inner) // 3 * 3])
    return needles


NEEDLES = _needles()
