"""Kill -9 in mid-export: never half a folder under the final name. The long run: docs/results/reader_fuzz.md.

Data sets are killed in Testing/batch/test_run.py, with their worker processes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.batch.small_scans import files_in, plan_of, write_scans, write_spec
from Testing.batch.test_run import run_here
from Testing.benchmarks.kill_instants import export_case, kill_at


def test_an_export_that_is_killed_leaves_nothing_or_everything(tmp_path: Path) -> None:
    found = kill_at(export_case, tmp_path, instants=4, seed=3, resumes=False)
    assert found.nothing + found.whole == 4
    assert found.nothing > 0


@pytest.mark.parametrize("left", [(), ("lock",), ("lock", ".run.json.part"), ("lock", "tmp/0000001-77/half.dcm")])
def test_a_data_set_killed_before_its_first_case_can_begin_again(
    left: tuple[str, ...], ct_series_folder: Path, tmp_path: Path
) -> None:
    write_scans(ct_series_folder, tmp_path, ("A",))
    plan = plan_of(write_spec(tmp_path, output='formats = ["coco"]\nsplit = { train = 1 }'), 1)
    for name in left:
        path = tmp_path / "set" / ".work" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    assert run_here(plan, tmp_path / "set").made == 1
    assert "half" not in {content.decode(errors="replace") for content in files_in(tmp_path / "set").values()}
