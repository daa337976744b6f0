"""Readers against damaged files: a part of the long run (docs/results/reader_fuzz.md), and each bug that it found.

Every one of these files ended the process, escaped as a foreign error, or filled the memory before it was mended.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from safetensors.numpy import save

from HiResMedSynthLib.batch.spec import read_spec
from HiResMedSynthLib.case_file import read_case, read_requests, write_case
from HiResMedSynthLib.errors import BankError, CaseError, ReadError, SettingsError
from HiResMedSynthLib.lesion.bank import BANK_FORMAT, bank_from_bytes
from HiResMedSynthLib.lesion.trained import source_of
from HiResMedSynthLib.placement.network import VERSION, NetworkPlan
from HiResMedSynthLib.privacy import read_descriptors
from HiResMedSynthLib.provenance import provenance_of
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.weights import Card, Model, ModelError
from Testing.benchmarks.reader_fuzz import FINE, fuzz
from Testing.benchmarks.reader_fuzz_targets import write_pictures
from Testing.export.cases import composition_in, ct_image
from Testing.slices import write_slice, write_stack
from Testing.test_read_bad_input import huge_png

GREY = np.arange(400, dtype=np.uint16).reshape(20, 20)
NRRD = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 3 2 1\nencoding: raw\n"
META = {"ObjectType": "Image", "NDims": "3", "DimSize": "3 2 1", "ElementType": "MET_UCHAR"}


def test_300_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    result = fuzz(300, 2, tmp_path)
    assert result.findings == []
    assert sum(result.outcomes.values()) == 300
    assert {outcome for _, outcome in result.outcomes} == set(FINE), "some are read, some refused"
    assert result.peak_mib < 2048


# -- what it found -----------------------------------------------------------------------------------------------------
def outcome(path: Path) -> str:
    try:
        read_image(path)
    except ReadError:
        return "refused"
    return "read"


@pytest.mark.parametrize(
    "line", [b"kinds: " + b"[" * 1200, b"sizes: " + b"9" * 1200, b"z" * 1200, b"zzz: " + b"a" * 1200]
)
def test_an_nrrd_line_on_which_itk_crashes(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD + line + b"\n\n" + bytes(6))
    with pytest.raises(ReadError, match="header is damaged"):
        read_image(path)
    assert not provenance_of(path).ours


def test_long_comments_and_values_of_an_nrrd_file_are_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    for end in (b"\n", b"\r\n"):
        header = NRRD + b"# " + b"c" * 5000 + b"\nkey:=" + b"v" * 5000 + b"\n\n"
        path.write_bytes(header.replace(b"\n", end) + bytes(6))
        assert read_image(path).shape == (1, 2, 3)


def metaimage(told: dict[str, str]) -> bytes:
    header = "".join(f"{key} = {value}\n" for key, value in {**told, "ElementDataFile": "LOCAL"}.items())
    return header.encode() + bytes(6)


@pytest.mark.parametrize(
    "wrong",
    [
        {"NDims": "-1"},
        {"NDims": "1e308"},
        {"NDims": ""},
        {"CompressedData": "True", "CompressedDataSize": "9" * 20},
        {"TransformMatrix": "1 0 0 1e308 1 0 0 0 1"},
        {"ElementSpacing": "1 nan 1"},
    ],
)
def test_numbers_of_a_metaimage_on_which_itk_crashes_or_hangs(wrong: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(metaimage({**META, **wrong}))
    with pytest.raises(ReadError, match="header is damaged"):
        read_image(path)


def test_words_of_a_header_that_are_no_text_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    path.write_bytes(metaimage({**META, "K": "v"}).replace(b"K = v", b"\xff\xfe = v"))
    assert read_image(path).shape == (1, 2, 3)


def test_a_deflated_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    path = write_slice(tmp_path / "a.dcm", GREY)
    data = pydicom.dcmread(path)
    data.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    data.save_as(path)
    assert read_image(path).rows == 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    whole = path.read_bytes()
    start = 144 + int.from_bytes(whole[140:144], "little")
    opened = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = zlib.decompress(whole[start:], -15)[:-800] + bytes(800)
    path.write_bytes(whole[:start] + opened.compress(plain) + opened.flush(zlib.Z_FULL_FLUSH) + block * 200)
    with pytest.raises(ReadError, match="unpacks to more than 256 MiB"):
        read_image(path)
    with pytest.raises(ReadError, match="unpacks to more than 256 MiB"):
        provenance_of(path)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    return folder


@pytest.mark.parametrize("name", ["jpeg", "j2k", "jpegls", "jpegll"])
def test_a_code_stream_that_contradicts_its_header(name: str, pictures: Path, tmp_path: Path) -> None:
    """On some of these GDCM ends the whole process."""
    path, damaged = pictures / f"{name}.dcm", tmp_path / "a.dcm"
    outcomes = []
    for keyword, value in (
        ("Rows", 35),
        ("Columns", 7),
        ("BitsAllocated", 8),
        ("BitsStored", 7),
        ("BitsAllocated", 32),
    ):
        data = pydicom.dcmread(path)
        setattr(data, keyword, value)
        data.save_as(damaged)
        outcomes.append(outcome(damaged))
    assert outcomes[:2] == ["refused", "refused"]
    whole = path.read_bytes()
    start = whole.rfind(b"\xfe\xff\x00\xe0") + 8
    for at in range(start, len(whole) - 8, max(1, (len(whole) - start) // 50)):
        damaged.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        outcome(damaged)


def with_raw(path: Path, **values: bytes) -> Path:
    """The file with these bytes as values, which pydicom would refuse to set."""
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        tag = pydicom.tag.Tag(keyword)
        vr = pydicom.datadict.dictionary_VR(tag)
        data._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True, True)
    data.save_as(path)
    return path


def test_numbers_in_a_dicom_header_that_are_none(tmp_path: Path) -> None:
    one = with_raw(write_slice(tmp_path / "a.dcm", GREY), PixelSpacing=b"nan\\nan ")
    with pytest.raises(ReadError, match="spacing is nan"):
        read_image(one)
    folder = write_stack(tmp_path / "s", np.stack([GREY, GREY]), [0.0, 1.0])
    for path in folder.iterdir():
        with_raw(path, InstanceNumber=b"nan ")
    assert read_image(folder).slices == 2


def test_a_transfer_syntax_that_is_no_uid(pictures: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes((pictures / "jpegls.dcm").read_bytes().replace(b"\x02\x00\x10\x00UI", b"\x02\x00\x10\x00LO"))
    assert outcome(path) == "refused"


def test_a_picture_that_claims_too_much_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(huge_png())
    with pytest.raises(ReadError, match="too large"):
        read_image(path)
    assert not provenance_of(path).ours


# -- lists and cards ---------------------------------------------------------------------------------------------------
DEEP = "[" * 5000 + "]" * 5000
CARD = {"name": "a", "origin": "made", "type": "solid", "diameter_mm": 4.0, "licence": "-", "attribution": "-"}
ALPHA = np.zeros((3, 3, 3), np.uint8)
ALPHA[1, 1, 1] = 255


def packed(entries: str, arrays: dict[str, np.ndarray]) -> bytes:
    return save(arrays, metadata={"format": BANK_FORMAT, "entries": entries, "source": entries})


@pytest.mark.parametrize(
    "entries",
    [
        DEEP,
        "[7]",
        '["a"]',
        "{}",
        json.dumps([{"card": {**CARD, "name": 7}, "voxel_mm": 1}]),
        json.dumps([{"card": {**CARD, "diameter_mm": "4"}, "voxel_mm": 1}]),
        json.dumps([{"card": {**CARD, "diameter_mm": -1.0}, "voxel_mm": 1}]),
        json.dumps([{"card": CARD, "voxel_mm": [1]}]),
        json.dumps([{"card": CARD, "voxel_mm": 10**400}]),
        json.dumps([{"card": {**CARD, "name": "x" * 70_000}, "voxel_mm": 1}]),
    ],
)
def test_entries_of_a_bank_that_are_none(entries: str, tmp_path: Path) -> None:
    content = packed(entries, {"a.alpha": ALPHA, "a.intensity_hu": ALPHA.astype(np.int16)})
    with pytest.raises(BankError) as error:
        bank_from_bytes(content).lesion("a")
    assert len(str(error.value)) < 2500
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    card = Card(name="m", kind="lesion-singan", data="-", licence="-", attribution="-")
    with pytest.raises(BankError):
        source_of(Model(card=card, path=path, shipped=False))


def test_a_number_in_a_model_that_no_float_holds(tmp_path: Path) -> None:
    path, beyond = tmp_path / "m.safetensors", 10**400
    card = Card(name="m", kind="lesion-singan", data="-", licence="-", attribution="-")
    source = {"format": BANK_FORMAT, "card": CARD, "voxel_mm": beyond}
    arrays = {"source.alpha": ALPHA, "source.intensity_hu": ALPHA.astype(np.int16)}
    path.write_bytes(save(arrays, metadata={"source": json.dumps(source)}))
    with pytest.raises(BankError, match="OverflowError"):
        source_of(Model(card=card, path=path, shipped=False))
    limits = {"plain": beyond, "limits": [1], "unlearned": 1}
    arrays = {"signs": ALPHA, "scale": np.ones(1)}
    for text in (json.dumps(limits), DEEP):
        path.write_bytes(save(arrays, metadata={"limits": text}))
        with pytest.raises(ModelError, match="no descriptors"):
            read_descriptors(path)
    plan = {"version": VERSION, "task": "-", "classes": [], "encoder": "-", "decoder": [], "channels": 1}
    with pytest.raises(ModelError, match="incomplete"):
        NetworkPlan.from_json({**plan, "facts": {"a": beyond}})


def test_a_lesion_of_a_case_that_is_brighter_than_numbers_go(tmp_path: Path) -> None:
    write_case(composition_in(ct_image()).case, tmp_path)
    file = tmp_path / "case.json"
    document = json.loads(file.read_text())
    document["lesions"][0]["intensity_base"] = 10**30
    file.write_text(json.dumps(document))
    with pytest.raises(CaseError, match="intensity_base"):
        read_case(tmp_path)


def test_texts_without_end(tmp_path: Path) -> None:
    for text in (f"[backgrounds]\nfiles = {DEEP}", f"[cases]\nseed = {'9' * 5000}", '[cases]\n"\\u001b[31m" = 1'):
        (tmp_path / "spec.toml").write_text(text)
        with pytest.raises(SettingsError) as error:
            read_spec(tmp_path / "spec.toml")
        assert str(error.value).isprintable()
    for text in (DEEP, f'[{{"seed": {"9" * 5000}}}]'):
        (tmp_path / "wishes.json").write_text(text)
        with pytest.raises(CaseError):
            read_requests(tmp_path / "wishes.json")
