"""A data set made once by the command line, which the tests of what it holds share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from Testing.batch.small_scans import write_scans, write_spec

COMMAND = (sys.executable, "-m", "HiResMedSynthLib.cli.main", "dataset")
ALL_FORMATS = (
    "count = 10\nnegatives = 0.2\npaired = true\nseed = 5",
    'formats = ["dicom", "coco", "yolo", "nnunet", "monai"]\nsplit = { train = 0.6, val = 0.2, test = 0.2 }',
)


@pytest.fixture(scope="session")
def scans(ct_series_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients' scans with a spec that asks for everything."""
    folder = tmp_path_factory.mktemp("MARKER-path")
    write_scans(ct_series_folder, folder)
    write_spec(folder, cases=ALL_FORMATS[0], output=ALL_FORMATS[1])
    return folder


@pytest.fixture(scope="session")
def dataset(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That data set, made by two workers without a break."""
    out = tmp_path_factory.mktemp("whole") / "set"
    subprocess.run([*COMMAND, str(scans / "spec.toml"), "--out", str(out), "--workers", "2"], check=True)
    return out
