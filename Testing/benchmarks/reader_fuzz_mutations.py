"""mutated(content, name, rng): the same file damaged, most often so that it still looks like one of its kind."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import re
import struct
import zlib
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

NUMBERS = (
    "0", "-1", "1", "2", "255", "65535", "65536", "2147483647", "2147483648", "4294967295", "-2147483649",
    "9223372036854775807", "18446744073709551616", "1e308", "1e400", "-1e400", "1e-320", "nan", "inf", "-inf", "0.0",
    "-0.0", "1e-9", "100000", "1.5", "0x10", "1_0", "", "٣", "9" * 5000,
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "\\", "a" * 70_000, "../../../etc/hostname", "/etc/hostname", "\ud800", "é" * 40, "%s%n", "\n", "=",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, float("nan"), float("inf"), 1.5, 1e-320,
    "", "nan", "x" * 70_000, "../../x", "\0", "\ud800", [], {}, [[]], [None], [0, 0, 0], [1e308] * 3, {"a": 1},
)  # fmt: skip
WORDS = (
    0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 2**15 - 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 2,
    2**32 - 1,
)  # fmt: skip
VRS = (b"UL", b"US", b"SQ", b"OB", b"OW", b"UN", b"DS", b"IS", b"FD", b"AT", b"UI", b"PN", b"OF", b"UT", b"ZZ", b"\0\0")
LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT", b"SV", b"UV")
SYNTAXES = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.3", "", "x" * 65,
)  # fmt: skip
BOMB_BYTES = 3 * 2**30


def mutated(content: bytes, name: str, rng: random.Random) -> bytes:
    """The damaged file.

    Args:
        content: an intact file.
        name: its name, whose suffix tells its kind.
        rng: decides everything.
    """
    kind = PurePosixPath(name).suffix.lower()
    own = {
        ".dcm": _dicom, ".gz": _gzip, ".png": _png, ".safetensors": _safetensors, ".json": _json, ".jsonl": _text,
        ".toml": _text, ".csv": _text, ".txt": _text, ".nhdr": _text, ".mhd": _text, ".yaml": _text, ".nrrd": _header,
        ".mha": _header,
    }.get(kind)  # fmt: skip
    if own is not None and rng.random() < 0.65:
        with contextlib.suppress(Exception):  # what is too damaged to be damaged with sense, is damaged blindly
            return own(content, name, rng)
    return _bytes(content, rng)


def _bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        at, length = _place(len(data), rng), min(len(data), int(2 ** rng.uniform(0, 10)))
        match rng.randrange(10):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF))
            case 3 | 4:
                form = rng.choice(("<H", ">H", "<I", ">I"))
                word = struct.pack(form, rng.choice(WORDS) % (2 ** (8 * struct.calcsize(form))))
                data[at : at + len(word)] = word
            case 5:
                del data[_place(len(data), rng) :]
            case 6:
                del data[at : at + length]
            case 7:
                data[at:at] = data[at : at + length]
            case 8:
                data[at : at + length] = bytes([rng.choice((0, 0xFF, 0x20))]) * length
            case 9:
                other = _place(len(data), rng)
                data[at : at + length] = data[other : other + length]
    return bytes(data)


def _place(size: int, rng: random.Random) -> int:
    """An index, of the first bytes as often as of all the others: there the headers are."""
    return rng.randrange(size) if rng.random() < 0.4 else min(size - 1, int(size ** rng.random()))


# -- texts -------------------------------------------------------------------------------------------------------------
def _text(content: bytes, _name: str, rng: random.Random) -> bytes:
    text = content.decode("utf-8")
    for _ in range(rng.choice((1, 1, 2, 3))):
        tokens = list(re.finditer(r"-?\d+(?:\.\d+)?(?:e-?\d+)?|[A-Za-z_]+|[^\w\s]|\n", text))
        if not tokens:
            break
        token, other = rng.choice(tokens), rng.choice(tokens)
        number = token[0][-1:].isdigit()
        new = rng.choice(NUMBERS if number or rng.random() < 0.2 else (*TEXTS, other[0], token[0] * 2, "[" * 3000, "{"))
        text = text[: token.start()] + new + text[token.end() :]
    if rng.random() < 0.1:
        lines = text.split("\n")
        rng.shuffle(lines)
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogatepass")


def _header(content: bytes, name: str, rng: random.Random) -> bytes:
    """NRRD and MetaImage: the text before the voxels."""
    end = content.find(b"\n\n") if content.startswith(b"NRRD") else content.find(b"ElementDataFile")
    return _text(content[:end], name, rng) + content[end:]


def _json(content: bytes, name: str, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return _text(content, name, rng)
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        document = _changed(document, rng)
    return json.dumps(document).encode()


def _changed(document: Any, rng: random.Random) -> Any:
    """The document with one value, somewhere in it, replaced, left out, doubled or wrapped."""
    holder, key = _node(document, rng)
    if holder is None:
        return rng.choice(VALUES)
    match rng.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, holder[key])
        case 2 if isinstance(holder, dict):
            holder[rng.choice(("x", "", "__class__", key + " "))] = holder[key]
        case 3:
            holder[key] = rng.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
        case 4:
            other, place = _node(document, rng)
            holder[key] = holder[key] if other is None else json.loads(json.dumps(other[place]))
        case 5:
            holder[key] = _nested(rng.choice((50, 900)))
        case _:
            holder[key] = rng.choice(VALUES)
    return document


def _node(document: Any, rng: random.Random) -> tuple[Any, Any]:
    """A (holder, key) anywhere in it; (None, None) where there is none, and now and then the root."""
    found = []
    waiting = [document]
    while waiting:
        one = waiting.pop()
        keys: Any = one if isinstance(one, dict) else range(len(one)) if isinstance(one, list) else ()
        for key in keys:
            found.append((one, key))
            waiting.append(one[key])
    return rng.choice(found) if found and rng.random() > 0.02 else (None, None)


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _safetensors(content: bytes, name: str, rng: random.Random) -> bytes:
    length = int.from_bytes(content[:8], "little")
    header, arrays = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.5:  # documents lie as text in its metadata
        document = json.loads(header)
        held = [key for key, text in document.get("__metadata__", {}).items() if text[:1] in ("{", "[")]
        key = rng.choice(held)
        document["__metadata__"][key] = _json(document["__metadata__"][key].encode(), name, rng).decode()
        header = json.dumps(document).encode()
    else:
        header = _json(header, name, rng)
    size = len(header) if rng.random() < 0.9 else rng.choice((0, 1, 2**31, 2**63 - 1, len(content)))
    return size.to_bytes(8, "little") + header + arrays


# -- packed and chunked files ------------------------------------------------------------------------------------------
@lru_cache(maxsize=1)
def _bomb() -> bytes:
    """A deflated stream of `BOMB_BYTES` zeros, without its end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (BOMB_BYTES // 2**24)


@lru_cache(maxsize=1)
def _packed_zeros() -> bytes:
    return zlib.compress(bytes(2**24))


def _gzip(content: bytes, name: str, rng: random.Random) -> bytes:
    if rng.random() < 0.01:
        inner = zlib.compressobj(1, zlib.DEFLATED, -15)
        start = inner.compress(gzip.decompress(content)) + inner.flush(zlib.Z_FULL_FLUSH)
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + start + _bomb() + b"\x03\0" + bytes(8)
    return gzip.compress(_bytes(gzip.decompress(content), rng), 1, mtime=0)


def _png(content: bytes, _name: str, rng: random.Random) -> bytes:
    """One chunk's content changed, doubled, moved or left out, with the right checksum."""
    chunks, at = [], 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    place = rng.randrange(len(chunks))
    name, held = chunks[place]
    match rng.randrange(8):
        case 0:
            del chunks[place]
        case 1:
            chunks.insert(place, chunks[place])
        case 2:
            chunks.insert(rng.randrange(len(chunks)), chunks.pop(place))
        case 3:
            kind = rng.choice((b"zTXt", b"iCCP", b"iTXt"))
            chunks.insert(1, (kind, b"a\0\0" + _packed_zeros() if rng.random() < 0.5 else b"\0\1"))
        case 4:
            name = rng.choice((b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"gAMA", b"pHYs", b"eXIf", b"XXXX"))
            chunks.insert(rng.randrange(1, len(chunks)), (name, rng.randbytes(rng.randrange(32))))
        case 5:
            chunks[0] = (chunks[0][0], struct.pack(">II", *rng.choices(WORDS, k=2)) + chunks[0][1][8:])
        case _:
            chunks[place] = (name, _bytes(held, rng))
    return content[:8] + b"".join(
        struct.pack(">I", len(held)) + name + held + struct.pack(">I", zlib.crc32(name + held)) for name, held in chunks
    )


# -- DICOM -------------------------------------------------------------------------------------------------------------
def _dicom(content: bytes, _name: str, rng: random.Random) -> bytes:
    if rng.random() < 0.004:
        return _deflated_bomb(content)
    if rng.random() < 0.4:
        return _element(content, rng)
    return _value(content, rng)


def _elements(content: bytes) -> list[tuple[int, int, int]]:
    """(start, place of the length, its width) of the elements of the first level, explicit VR little endian."""
    found, at = [], 132
    while at + 8 <= len(content):
        long = content[at + 4 : at + 6] in LONG_VRS
        place, width = (at + 8, 4) if long else (at + 6, 2)
        length = int.from_bytes(content[place : place + width], "little")
        found.append((at, place, width))
        if length == 2**32 - 1:
            break
        at = place + width + length
    return found


def _element(content: bytes, rng: random.Random) -> bytes:
    """A length, a VR or a tag of the first level changed; or a whole element doubled, moved or left out."""
    data, elements = bytearray(content), _elements(content)
    start, place, width = rng.choice(elements)
    length = int.from_bytes(content[place : place + width], "little")
    end = min(len(content), place + width + length)
    match rng.randrange(7):
        case 0 | 1:
            near = (length - 1, length + 1, length + 2, length - 2, len(content), length * 2)
            data[place : place + width] = (rng.choice((*WORDS, *near)) % 2 ** (8 * width)).to_bytes(width, "little")
        case 2:
            data[start + 4 : start + 6] = rng.choice(VRS)
        case 3:
            other = rng.choice(elements)[0]
            data[start : start + 4] = content[other : other + 4]
        case 4:
            del data[start:end]
        case 5:
            data[start:start] = content[start:end] * rng.choice((1, 2, 50))
        case 6:
            other = rng.choice(elements)[0]
            data[other:other] = content[start:end]
    return bytes(data)


def _value(content: bytes, rng: random.Random) -> bytes:
    """Values replaced by odd ones, at any depth; lengths and order stay right."""
    import pydicom

    data = pydicom.dcmread(io.BytesIO(content), force=True)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if rng.random() < 0.05:
            data.file_meta.TransferSyntaxUID = rng.choice(SYNTAXES)
            continue
        holder = data
        while True:
            element = rng.choice(list(holder))
            if element.VR != "SQ" or not element.value or rng.random() < 0.1:
                break
            holder = rng.choice(element.value)
        packed = _odd_value(element.VR, rng)
        if rng.random() < 0.08:
            del holder[element.tag]
        else:
            raw = pydicom.dataelem.RawDataElement(
                element.tag, element.VR, len(packed), packed, 0, False, True, True
            )  # fmt: skip
            holder._dict[element.tag] = raw  # its own setters would refuse it
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=False, implicit_vr=False, little_endian=True)
    return stream.getvalue()


def _odd_value(vr: str, rng: random.Random) -> bytes:
    if vr in ("US", "SS"):
        return b"".join(struct.pack("<H", rng.choice(WORDS) % 2**16) for _ in range(rng.choice((1, 1, 1, 0, 2))))
    if vr in ("UL", "SL", "FL", "AT"):
        return b"".join(struct.pack("<I", rng.choice(WORDS)) for _ in range(rng.choice((1, 1, 1, 0, 2))))
    if vr in ("FD", "OB", "OW", "UN", "OF", "SQ"):
        return rng.randbytes(rng.choice((0, 1, 2, 7, 8, 16, 64)))
    if vr in ("DS", "IS"):
        count = rng.choice((1, 1, 2, 3, 6, 7))
        return "\\".join(rng.choice((*NUMBERS, "1", "0", "abc")) for _ in range(count)).encode()[:60_000]
    return rng.choice((*TEXTS, *NUMBERS)).encode("utf-8", "surrogatepass")[:60_000]


def _deflated_bomb(content: bytes) -> bytes:
    """The same under the deflated syntax, with zeros without end as its pixels."""
    import pydicom

    data = pydicom.dcmread(io.BytesIO(content), force=True)
    data.PixelData, data.Rows, data.Columns = bytes(4), 2, 1
    data.file_meta.TransferSyntaxUID = SYNTAXES[3]
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, data, enforce_file_format=True)
    whole = stream.getvalue()
    start = 132 + 12 + int.from_bytes(whole[140:144], "little")
    plain = zlib.decompress(whole[start:], -15)
    body = plain[:-8] + (BOMB_BYTES - 2**20).to_bytes(4, "little")  # the length of the pixels
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    return whole[:start] + packer.compress(body) + packer.flush(zlib.Z_FULL_FLUSH) + _bomb() + b"\x03\0"
