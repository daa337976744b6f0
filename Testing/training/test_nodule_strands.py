"""The table of real nodules' strands is measured as composed lesions are, and leaves out what can't be seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from HiResMedSynthLib.joining import real_strands
from Testing.joining.phantom import SPACING_MM, ball
from Testing.joining.test_belonging import SHAPE, scene
from Training import build_nodule_strands
from Training.nodule_source import SourceNodule


def nodule(hu: NDArray[np.int16]) -> SourceNodule:
    row = {"dz_mm": SPACING_MM[0], "dy_mm": SPACING_MM[1], "dx_mm": SPACING_MM[2], "spiculation": 2.25, "texture": 5}
    readers = np.where(ball(SHAPE, 10.0) >= 32768, 4, 0).astype(np.uint8)
    middle = (SHAPE[0] - len(hu)) // 2
    cut = readers[middle : middle + len(hu)]
    return SourceNodule(row={k: str(v) for k, v in {**row, "calcification": 6}.items()}, hu=hu, readers=cut)


def test_a_strand_s_radius_and_reach_are_on_record() -> None:
    found = build_nodule_strands.row(nodule(scene(((6.0, 48.0, 50.0), (6.0, 48.0, 75.0)), radius_mm=1.0)))
    assert found is not None
    kind, diameter, rating, seen, strands = found
    assert (kind, rating) == ("solid", 2.2)
    assert diameter == pytest.approx(10.0, abs=0.6)
    assert seen > 0.9  # type: ignore[operator]
    assert isinstance(strands, list)
    ((radius, reach),) = strands
    assert 0.9 < radius < 1.4  # slices of 2 mm show it brighter than thin ones
    assert reach > 7.0


def test_one_that_is_cut_too_tight_is_left_out() -> None:
    assert build_nodule_strands.row(nodule(scene()[6:7])) is None


def test_the_written_table_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [nodule(scene(((6.0, 48.0, 50.0), (6.0, 48.0, 75.0)))), nodule(scene())]
    monkeypatch.setattr(build_nodule_strands, "nodules", lambda _folder: iter(found))
    file = tmp_path / "deep" / "strands.json"
    done = CliRunner().invoke(build_nodule_strands.main, [str(tmp_path), "--out", str(file)])
    assert done.exit_code == 0, done.output
    assert json.loads(file.read_text())["licence"] == "CC BY 3.0"
    monkeypatch.setattr(real_strands, "SHIPPED", file)
    real_strands.shipped_strands.cache_clear()
    try:
        counts = sorted(len(one.strands) for one in real_strands.shipped_strands().nodules)
    finally:
        real_strands.shipped_strands.cache_clear()
    assert counts == [0, 1]
