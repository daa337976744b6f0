"""Kill -9 at random instants of an export and of a data set: nothing half-written, and a second run ends the same.

python -m Testing.benchmarks.kill_instants --instants 20 --seed 1
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from HiResMedSynthLib.export.folder import export
from HiResMedSynthLib.export.identity import OutputIdentity
from Testing.batch.small_scans import files_in, made_here, plan_of, write_scans, write_spec
from Testing.export.cases import composition_in, ct_image

SERIES = Path(__file__).resolve().parents[1] / "data" / "ct_series"
MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
Action = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What stood under the final name after each kill.

    Args:
        nothing, whole: how often nothing, or everything.
        part: how often a data set that is not finished, each file under a final name whole.
        seconds: that an undisturbed run takes.
    """

    nothing: int
    part: int
    whole: int
    seconds: float


def export_case(out: Path) -> None:
    """A case of seven slices with its pair, SEG, measurements and preview, with the same UIDs each time."""
    export(composition_in(ct_image(), lesions=2), out, pair=True, identity=OutputIdentity(seed="s", moment=MOMENT))


def make_data_set(spec: Path, out: Path) -> None:
    """A data set of four cases, as DICOM and as MONAI volumes."""
    from HiResMedSynthLib.batch.run import run

    plan = plan_of(spec, 4)
    engine = partial(made_here, plan, out)
    run(plan, out, workers=1, on_case=lambda _done, _all, _outcome: None, engine=engine)


def data_set_in(folder: Path) -> Action:
    """`make_data_set` with two small scans that are written into the folder."""
    write_scans(SERIES, folder, ("A", "B"))
    spec = write_spec(folder, output='formats = ["dicom", "monai"]\nsplit = { train = 1 }')
    return partial(make_data_set, spec)


def kill_at(action: Action, place: Path, *, instants: int, seed: int, resumes: bool) -> Killed:
    """Runs the action in a child that is killed at random instants of its time; then again in a second one, to its end.

    Args:
        action: writes its output.
        place: folder for the outputs.
        instants: how many.
        seed: of the instants.
        resumes: whether what is left under the final name may be a part that the second run completes.

    Raises:
        AssertionError: a half-written file or folder under a final name, or other bytes after the second run.
    """
    action(place / "first")  # what is loaded on first use
    began = time.perf_counter()
    action(place / "uncut")
    seconds = time.perf_counter() - began
    uncut = files_in(place / "uncut")
    rng = random.Random(seed)
    counts = {"nothing": 0, "part": 0, "whole": 0}
    for number in range(instants):
        out = place / f"out{number}"
        if (child := os.fork()) == 0:
            action(out)
            os._exit(0)
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        left = shown(files_in(out)) if out.exists() else {}
        half = [name for name, content in left.items() if uncut.get(name) != content]
        assert not half, f"instant {number}: half-written {half}"
        assert resumes or not out.exists() or left.keys() == uncut.keys(), f"instant {number}: half a folder"
        counts["whole" if left.keys() == shown(uncut).keys() else "part" if left else "nothing"] += 1
        if resumes or not out.exists():
            action(out)
        assert files_in(out) == uncut, f"instant {number}: the second run gives other bytes"
        shutil.rmtree(out)
    return Killed(**counts, seconds=seconds)


def shown(files: dict[str, bytes]) -> dict[str, bytes]:
    """Those under a name that a user sees; a part under a hidden name is no result."""
    return {name: content for name, content in files.items() if not any(p.startswith(".") for p in name.split("/"))}


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--instants", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    lines = [
        "| what | undisturbed | instants | nothing under the name | a part, each file whole | whole |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "scans").mkdir()
        for name, action, resumes in (
            ("export of a case", export_case, False), ("data set of 4 cases", data_set_in(place / "scans"), True),
        ):  # fmt: skip
            (place / name).mkdir()
            found = kill_at(action, place / name, instants=given.instants, seed=given.seed, resumes=resumes)
            counts = f"{given.instants} | {found.nothing} | {found.part} | {found.whole}"
            lines.append(f"| {name} | {found.seconds:.1f} s | {counts} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
