"""Nothing of a source's header gets into any byte that is written: outputs, case.json, temporary files, logs."""

from __future__ import annotations

import base64
import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.read import read_image
from Testing.export.cases import composition_in
from Testing.marked_source import DATE, WORD, fill, filled_copy, traces_in
from Testing.slices import CT, DX, MR, SECONDARY, write_slice

CR = "1.2.840.10008.5.1.4.1.1.1"
ROOT = Path(__file__).resolve().parents[1]


def all_bytes(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_clean(folder: Path) -> int:
    """Fails with the file and the encoding of any trace; returns how many files were searched."""
    files = all_bytes(folder)
    traces = {str(path.relative_to(folder)): traces_in(path.name.encode() + content) for path, content in files.items()}
    assert not {name: found for name, found in traces.items() if found}
    return len(files)


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The test of the test: every hiding place that is searched is found out."""
    told = PngInfo()
    told.add_text("Comment", WORD, zip=True)
    Image.new("L", (4, 4)).save(tmp_path / "a.png", pnginfo=told)
    hidden = {
        "raw": f"..{WORD}..".encode(),
        "UTF-16": WORD.encode("utf-16"),
        "hex": DATE.encode().hex().encode(),
        "gzip": gzip.compress(b"x" * 1000 + WORD.encode()),
        "png text": (tmp_path / "a.png").read_bytes(),
        **{f"base64 {k}": base64.b64encode(b"-" * k + f"{WORD}, a name".encode()) for k in range(3)},
    }
    assert [name for name, content in hidden.items() if not traces_in(content)] == []
    assert traces_in(b"nothing of the kind") == set()


SOURCES: dict[str, dict[str, Any]] = {
    "CT": {"sop_class": CT, "modality": "CT"},
    "MR": {"sop_class": MR, "modality": "MR"},
    "DX": {"sop_class": DX, "modality": "DX", "ImagerPixelSpacing": [0.2, 0.2]},
    "CR": {"sop_class": CR, "modality": "CR"},
    "SC": {"sop_class": SECONDARY, "modality": "OT"},
    "a name as modality": {"sop_class": SECONDARY, "modality": WORD},
    "a class that isn't rebuilt": {"sop_class": "1.2.840.10008.5.1.4.1.1.128", "modality": WORD},
}


@pytest.mark.parametrize("kind", SOURCES)
def test_no_text_uid_or_date_of_a_source_is_in_any_file(kind: str, tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(0, 4096, (40, 48)).astype(np.uint16)
    source = write_slice(tmp_path / WORD / f"{WORD}.dcm", stored, BitsStored=12, HighBit=11, **SOURCES[kind])
    data = pydicom.dcmread(source)
    fill(data)
    data.save_as(source)
    content = source.read_bytes()
    assert {"word", "UID", "date"} <= traces_in(content)
    assert content.count(WORD.encode()) > 1500
    composition = composition_in(read_image(source))
    seen: list[set[str]] = []

    def look(_done: int, _total: int, _what: str) -> None:  # while it is being written
        for path, held in all_bytes(tmp_path / "out").items():
            seen.append(traces_in(path.name.encode() + held))

    (tmp_path / "out").mkdir()
    export(composition, tmp_path / "out" / "case", pair=True, progress=look)
    export(composition, tmp_path / "out" / "other", seg="labelmap", compress="rle", pair=True)
    assert len(seen) > 5
    assert not set().union(*seen)
    assert assert_clean(tmp_path / "out") > 15


def test_the_command_line_leaves_no_trace_in_files_temporary_files_or_what_it_says(
    ct_series_folder: Path, tmp_path: Path
) -> None:
    source = filled_copy(ct_series_folder / "IM0030.dcm", tmp_path / "source" / "IM1.dcm")
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    scratch.mkdir()
    command = [
        sys.executable,
        "-m",
        "HiResMedSynthLib.cli.main",
        "compose",
        str(source),
        "--size-mm",
        "12:14",
        "--seed",
        "2",
    ]
    command += ["--danger", "rule", "--watermark", "--pair", "--mask-box", "0,0,20,60", "--out", str(out / "case")]
    surroundings = os.environ | {"TMPDIR": str(scratch), "HIRESMEDSYNTH_DEBUG": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not traces_in((done.stdout + done.stderr).encode())
    assert assert_clean(out) > 10
    assert_clean(scratch)
    (tmp_path / "source" / "IM1.dcm").write_bytes(source.read_bytes()[:9000])  # damaged: the message names no patient
    done = subprocess.run(
        [*command[:-1], str(out / "b")], capture_output=True, text=True, check=False, env=surroundings
    )
    assert done.returncode != 0
    assert not traces_in((done.stdout + done.stderr).encode())
