"""Dry runs: what would be made, how large, how long, and whether the folder can take it; nothing is written."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pydicom

from Testing.batch.conftest import COMMAND
from Testing.batch.small_scans import CASES, files_in


def test_dry_run_counts_and_writes_nothing(scans: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text(f'[backgrounds]\nfiles = ["{scans}/scan0"]\nslices = "each"\n[cases]\n{CASES}')
    done = subprocess.run(
        [*COMMAND, str(spec), "--dry-run", "--measure", "--count", "1"], capture_output=True, text=True, check=True,
        cwd=tmp_path,
    )  # fmt: skip
    assert "1 cases in 2 background(s) of 1 patient(s)" in done.stdout
    assert "no val and no test side" in done.stderr
    assert "measured now on 1 case(s)" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["spec.toml"]


def test_a_dry_run_reckons_from_headers_and_reads_no_pixel(scans: Path, tmp_path: Path) -> None:
    shutil.copytree(scans / "scan0", tmp_path / "scan0")
    slices = 0
    for file in (tmp_path / "scan0").iterdir():
        data = pydicom.dcmread(file)
        pixels, slices = data.Rows * data.Columns, slices + 1
        data.PixelData = data.PixelData[:2]  # a pixel that were read would be missed
        data.save_as(file)
    shutil.copyfile(file, tmp_path / "scan0" / "DICOMDIR")
    spec = tmp_path / "whole.toml"
    spec.write_text('[backgrounds]\nfiles = "scan0"\n[cases]\ncount = 1000\n')
    done = subprocess.run([*COMMAND, str(spec), "--dry-run"], capture_output=True, text=True, check=True)
    assert "1000 cases in 1 background(s) of 1 patient(s)" in done.stdout
    assert f"reckoned from 1 header(s), {slices * pixels / 1e6:.3g} million pixels" in done.stdout
    assert f"about {1000 * 2 * slices * pixels / 1e6:.3g} MB of pixels" in done.stdout
    with spec.open("a") as stream:
        stream.write('[output]\nformats = ["yolo"]\n')
    del data.Rows, data.PixelData
    data.save_as(tmp_path / "scan0" / "0_report.dcm")
    told = subprocess.run([*COMMAND, str(spec), "--dry-run"], capture_output=True, text=True, check=True).stdout
    assert "of pixels and" not in told
    assert "reckoned from 1 header(s)" in told
    refused = subprocess.run([*COMMAND, str(spec), "--measure"], capture_output=True, text=True, check=False)
    assert "no effect without --dry-run" in refused.stderr


def test_a_dry_run_says_whether_the_folder_can_take_the_cases(scans: Path, dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(f'[backgrounds]\nfiles = ["{scans}/scan0"]\n[cases]\ncount = 2\nseed = 9\n')
    there = files_in(dataset)
    for spec, code in ((scans / "spec.toml", 0), (other, 1)):
        arguments = [*COMMAND, str(spec), "--dry-run", "--out", str(dataset)]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert ("of another spec, seed, list of backgrounds" in done.stderr) is (code == 1)
        assert "cases in" in done.stdout
    assert files_in(dataset) == there
