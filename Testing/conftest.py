"""The repository's own data as fixtures, and small helpers that many tests share."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(scope="session")
def ct_series_folder() -> Path:
    """12 slices of a real lung CT, 512x512, 5 mm apart."""
    return DATA / "ct_series"


@pytest.fixture(scope="session")
def cxr_file() -> Path:
    """A real chest film without pixel spacing."""
    return DATA / "cxr" / "nih_cxr_dx.dcm"


@pytest.fixture(scope="session")
def edge_case_folder() -> Path:
    """One CT slice in four lossless compressions."""
    return DATA / "edge_cases"


@pytest.fixture(scope="session")
def tilted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slices of a phantom scanned with gantry tilt."""
    folder = tmp_path_factory.mktemp("tilted")
    with zipfile.ZipFile(DATA / "edge_cases" / "phantom_head_tilt_minus18.zip") as archive:
        for name in archive.namelist():
            if not name.endswith("/"):
                (folder / Path(name).name).write_bytes(archive.read(name))
    return folder
