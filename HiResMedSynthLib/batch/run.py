"""A run: which cases of a data set are still to be made, in which order, and what is left to do when all are whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from HiResMedSynthLib.batch.card import write_card
from HiResMedSynthLib.batch.layout import whole_text
from HiResMedSynthLib.batch.making import WORK, Outcome, is_done, layouts_of
from HiResMedSynthLib.batch.manifest import entries_of, write_failures, write_manifest
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.workers import make_cases
from HiResMedSynthLib.errors import ExportError, SettingsError
from HiResMedSynthLib.versions import installed_versions

RUN_FILE = "run.json"
REASONS_TOLD = 5
HOPELESS = 20  # cases that fail before any is made: then the run ends
Engine = Callable[[Sequence[Sequence[int]]], Iterator[Outcome]]
OnCase = Callable[[int, int, Outcome], None]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a run did.

    Args:
        made: cases made by this run.
        before: cases that an earlier run had made.
        failures: number -> why it could not be made.
    """

    made: int
    before: int
    failures: dict[int, str]


def check_target(plan: Plan, out: Path) -> None:
    """Refuses a folder that isn't empty and doesn't hold this data set, begun with the same versions and no larger.

    Raises:
        ExportError: it says what the folder holds.
    """
    if out.exists() and not out.is_dir():
        raise ExportError("the output is no folder", where=out, remedy="Choose another --out.")
    try:
        if not out.exists() or _nothing_is_made(out):
            return
    except OSError as error:
        raise ExportError(
            f"the output can't be looked into ({error.strerror})", where=out, remedy="Choose another --out."
        ) from error
    try:
        told = json.loads((out / WORK / RUN_FILE).read_text(encoding="utf-8"))
        same, versions = told["data_set"] == plan.sha256, dict(told["versions"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            "the output exists and holds no data set that could go on", where=out, remedy="Choose another --out."
        ) from error
    if not same:
        raise ExportError(
            "the output holds a data set of another spec, seed, list of backgrounds or lesion bank", where=out,
            remedy="Choose another --out, or run the spec that it was begun with.",
        )  # fmt: skip
    now = installed_versions()
    differ = [name for name in {**versions, **now} if versions.get(name) != now.get(name)]
    if differ:
        raise ExportError(
            f"the output was begun with another version of {', '.join(sorted(differ))}", where=out,
            remedy="Go on with those versions (.work/run.json), or choose another --out.",
        )  # fmt: skip
    highest = _highest_case(out)
    if highest > plan.count:  # lists of fewer would leave files in the folders that trainers go through
        raise ExportError(
            f"the output holds cases up to number {highest}, {plan.count} are asked for", where=out,
            remedy=f"Ask for {highest} or more (--count), or choose another --out.",
        )  # fmt: skip


def _nothing_is_made(out: Path) -> bool:
    """Whether a folder is empty, or a run was ended in it before it had begun with its first case."""
    inside = {path.name for path in (out / WORK).iterdir()} if (out / WORK).is_dir() else set()
    return {path.name for path in out.iterdir()} <= {WORK} and inside <= {"lock", "tmp", f".{RUN_FILE}.part"}


def _highest_case(out: Path) -> int:
    """Number of the last case that is whole, 0 where none is."""
    folders = sorted((out / WORK / "records").glob("[0-9]*"), key=lambda folder: int(folder.name))
    return max((int(file.stem) for folder in folders[-1:] for file in folder.glob("*.json")), default=0)


def run(plan: Plan, out: Path, *, workers: int, on_case: OnCase, engine: Engine | None = None) -> Finished:
    """Makes what is missing of a data set, then its lists and its card.

    Args:
        plan: of the data set.
        out: its folder, new or of an interrupted run of the same plan.
        workers: processes.
        on_case: told (done, all, outcome) after each case.
        engine: what makes cases elsewhere; None: processes here.

    Raises:
        ExportError: the folder holds something else, is in use, or can't be written.
        SettingsError: none of the first cases can be made.
    """
    out = out.absolute()
    try:
        check_target(plan, out)
        (out / WORK).mkdir(parents=True, exist_ok=True)
        with _alone(out / WORK / "lock"):
            shutil.rmtree(out / WORK / "tmp", ignore_errors=True)
            told = {"data_set": plan.sha256, "versions": installed_versions()}
            whole_text(out / WORK / RUN_FILE, json.dumps(told, indent=1) + "\n")
            missing = [number for number in range(1, plan.count + 1) if not is_done(plan, out, number)]
            made = engine or (lambda groups: make_cases(plan, out, groups, workers=workers))
            try:
                failures = _made(plan, made(grouped(plan, missing)), len(missing), on_case)
            finally:
                shutil.rmtree(out / WORK / "tmp", ignore_errors=True)
            _finish(plan, out, failures)
    except OSError as error:
        raise ExportError(
            f"the data set can't be written ({error.strerror or error})", where=out,
            remedy="Free space or mend the folder, then run the same command again: it goes on.",
        ) from error  # fmt: skip
    return Finished(made=len(missing) - len(failures), before=plan.count - len(missing), failures=failures)


def grouped(plan: Plan, numbers: Iterable[int]) -> list[list[int]]:
    """The cases by background, those of one source beside each other, so that each is read and prepared once."""
    places = {number: plan.backgrounds_of(number)[0] for number in numbers}
    groups: dict[int, list[int]] = {}
    for number, index in places.items():
        groups.setdefault(index, []).append(number)
    first: dict[object, int] = {}
    for index in sorted(groups):
        first.setdefault(plan.backgrounds[index].source, index)
    return [groups[index] for index in sorted(groups, key=lambda one: (first[plan.backgrounds[one].source], one))]


def reasons(plan: Plan, numbers: Iterable[int], failures: Mapping[int, str]) -> list[str]:
    """Why cases could not be made, a line a reason, that of most backgrounds first.

    Args:
        plan: of the data set.
        numbers: of all cases that were tried.
        failures: of those: number -> why it could not be made.
    """
    tried = {plan.backgrounds_of(number)[0] for number in numbers}
    found: dict[str, set[int]] = {}
    for number, why in failures.items():
        found.setdefault(why, set()).add(plan.backgrounds_of(number)[0])
    ordered = sorted(found, key=lambda why: -len(found[why]))
    lines = [f"{len(found[why])} of {len(tried)} background(s): {why}" for why in ordered[:REASONS_TOLD]]
    return lines + ([f"and {len(ordered) - REASONS_TOLD} other reason(s)"] if len(ordered) > REASONS_TOLD else [])


def _made(plan: Plan, outcomes: Iterator[Outcome], missing: int, on_case: OnCase) -> dict[int, str]:
    failures: dict[int, str] = {}
    before = plan.count - missing
    done = 0
    for done, outcome in enumerate(outcomes, start=1):
        if outcome.failure:
            failures[outcome.number] = outcome.failure
        on_case(before + done, plan.count, outcome)
        if len(failures) == done and before == 0 and done >= min(HOPELESS, missing):
            raise SettingsError(
                f"none of the first {done} cases could be made. {' '.join(reasons(plan, failures, failures))}",
                remedy="Mend that, then run the same command again.",
            )
    assert done == missing, "a case was lost"
    return dict(sorted(failures.items()))


def _finish(plan: Plan, out: Path, failures: dict[int, str]) -> None:
    """Lists, manifest and card, from the records in the order of the numbers."""
    output = plan.spec.output
    numbers = [number for number in range(1, plan.count + 1) if number not in failures]
    for name, layout in layouts_of(output).items():
        if numbers:
            layout.finish(entries_of(out, numbers, name), out, output)
    write_manifest(plan, out, numbers)
    write_failures(out, failures)
    write_card(plan, out, numbers, failures)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the system takes the lock off a run that is killed."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once write the same bytes, one of them may fail
        yield
        return
    with lock.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(
                "another run is writing into this folder", where=lock.parent.parent, remedy="Wait for it, or end it."
            ) from error
        yield
