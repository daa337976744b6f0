"""Every reader against files damaged at random: a reading, or a clear refusal; no crash, no hang, no flood of memory.

python -m Testing.benchmarks.reader_fuzz --count 100000 --seed 1 --out runs/reader_fuzz    goes on where it was stopped
python -m Testing.benchmarks.reader_fuzz --seed 1 --out runs/reader_fuzz --show 4711       one of them again, by hand

Number and seed decide each file; `--first 50000` begins there, so that two runs share the work; `--again` reads the
files of the findings once more. A worker reads the files one by one under limits of time and memory; one that dies is
replaced, and the file that it died of is a finding. `log.txt` in the folder holds one line a file.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from HiResMedSynthLib.errors import HiResMedSynthError
from Testing.benchmarks.reader_fuzz_mutations import mutated
from Testing.benchmarks.reader_fuzz_targets import TARGETS, Target, write_inputs

SLOWEST_S = 10  # of processor time
GIVEN_UP_S = 120  # by the clock: the machine may be busy
MOST_MIB = 2048  # resident; a worker may reserve more than it touches
MOST_RESERVED = 6 * 2**30
LONGEST_MESSAGE = 3000
IN_A_WORKER = 4000  # files, then a fresh process
FINE = ("read", "refused")
WHY_ENDED = {1: "hang", -signal.SIGSEGV: "crash: segmentation fault", -signal.SIGABRT: "crash: abort"}


@dataclass(kw_only=True)
class Result:
    """What a run found.

    Args:
        outcomes: (reader, outcome) -> how many.
        findings: (number, target, outcome) of files that were neither read nor refused.
        slowest_s: longest time that one took.
        peak_mib: largest resident memory of a worker.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[tuple[int, str, str]] = field(default_factory=list)
    slowest_s: float = 0.0
    peak_mib: float = 0.0


def damage(number: int, seed: int, inputs: Path, folder: Path) -> Target:
    """Writes the damaged input of that number into the empty folder; says whose it is."""
    rng = random.Random(f"{seed}/{number}")
    target = rng.choices(TARGETS, [one.weight for one in TARGETS])[0]
    held = sorted(path for path in (inputs / target.name).rglob("*") if path.is_file())
    names = [path.relative_to(inputs / target.name).as_posix() for path in held]
    chosen = rng.choice([name for name in names if not target.damaged or name in target.damaged])
    for name, path in zip(names, held, strict=True):
        content = path.read_bytes()
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(mutated(content, name, rng) if name == chosen else content)
    return target


def outcome_of(target: Target, folder: Path) -> str:
    """How the reader took it: "read", "refused", or what went wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(folder / target.opened)
    except HiResMedSynthError as error:
        if memory_ran_out(error):
            return "memory"
        text = str(error)
        if not error.remedy or len(text) > LONGEST_MESSAGE or not text.isprintable():
            return f"message: {len(text)} characters"
        return "refused"
    except MemoryError:
        return "memory"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in place if "HiResMedSynthLib" in frame.filename] or place
        return f"crash: {type(error).__name__} in {Path(ours[-1].filename).name} {ours[-1].name}"
    return "read"


def memory_ran_out(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that there is no memory left."""
    while error is not None:
        if isinstance(error, MemoryError) or "bad allocation" in str(error) or "bad_alloc" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


# -- the worker --------------------------------------------------------------------------------------------------------
def work(start: int, stop: int, seed: int, out: Path) -> None:
    """Reads the files of these numbers; a line for each to log.txt."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_RESERVED, MOST_RESERVED))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.setrecursionlimit(1000)
    scratch = Path(tempfile.mkdtemp(prefix="reader-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    with (out / "log.txt").open("a", buffering=1, encoding="utf-8") as log, (out / "dead.txt").open("w") as traces:
        for number in range(start, stop):
            folder = scratch / str(number)
            (out / "current").write_text(str(scratch))
            target = damage(number, seed, out / "inputs", folder)
            faulthandler.dump_traceback_later(GIVEN_UP_S, exit=True, file=traces)
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
            began = time.process_time()
            outcome = outcome_of(target, folder)
            seconds = time.process_time() - began
            faulthandler.cancel_dump_traceback_later()
            peak = peak_mib()
            outcome = "memory" if peak > MOST_MIB else "hang" if seconds > SLOWEST_S else outcome
            log.write(f"{number}\t{target.name}\t{seconds:.3f}\t{peak}\t{outcome}\n")
            shutil.rmtree(folder)
    shutil.rmtree(scratch)


def peak_mib() -> int:
    """Largest resident memory of this process since its peak was last forgotten."""
    told = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) // 1024


# -- the run -----------------------------------------------------------------------------------------------------------
def fuzz(count: int, seed: int, out: Path, *, first: int = 0) -> Result:
    """Reads so many files from the first on, but those that are in the log; what all of them gave."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "inputs").is_dir():
        aside = Path(tempfile.mkdtemp(prefix=".inputs-", dir=out))
        write_inputs(aside)
        check_inputs(aside)
        aside.rename(out / "inputs")
    while (done := logged(out)) < count:
        stop = min(count, done + IN_A_WORKER)
        command = [sys.executable, "-m", __spec__.name, "--work", str(first + done), str(first + stop)]
        options = ["--seed", str(seed), "--out", str(out)]
        ended = subprocess.run([*command, *options], check=False, stderr=subprocess.PIPE, text=True, errors="replace")
        shutil.rmtree((out / "current").read_text(), ignore_errors=True)
        if ended.returncode != 0:
            _bury(first + logged(out), seed, out, ended)
    return result_of(out, count)


def check_inputs(inputs: Path) -> None:
    """Refuses to begin where a reader doesn't even take its intact input."""
    with tempfile.TemporaryDirectory() as place:
        for target in TARGETS:
            shutil.copytree(inputs / target.name, Path(place) / target.name)
            target.read(Path(place) / target.name / target.opened)


def logged(out: Path) -> int:
    """How many files the log tells of; half a line is taken off."""
    try:
        text = (out / "log.txt").read_bytes()
    except FileNotFoundError:
        return 0
    if not text.endswith(b"\n") and text:
        (out / "log.txt").write_bytes(text[: text.rfind(b"\n") + 1])
    return text.count(b"\n")


def _bury(number: int, seed: int, out: Path, ended: subprocess.CompletedProcess[str]) -> None:
    """Logs the file that a worker died of."""
    trace = (out / "dead.txt").read_text(errors="replace")
    why = WHY_ENDED.get(ended.returncode, f"crash: exit {ended.returncode}")
    if ended.returncode == 1 and "Timeout" not in trace:
        raise SystemExit(f"the worker itself failed:\n{ended.stderr[-3000:]}")
    with tempfile.TemporaryDirectory() as folder:
        target = damage(number, seed, out / "inputs", Path(folder))
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write(f"{number}\t{target.name}\t0\t0\t{why}\n")
    with (out / "deaths.txt").open("a", encoding="utf-8") as deaths:
        deaths.write(f"{number} {target.name} {why}\n{trace}{ended.stderr[-2000:]}\n")


def again(seed: int, out: Path) -> None:
    """Reads the files of the findings once more, each in a child of its own, and puts the outcomes into the log."""
    lines = (out / "log.txt").read_text(encoding="utf-8").splitlines()
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "inputs").symlink_to((out / "inputs").absolute())
        for index, line in enumerate(lines):
            number, outcome = int(line.split("\t")[0]), line.split("\t")[-1]
            if outcome in FINE:
                continue
            (Path(place) / "log.txt").unlink(missing_ok=True)
            if (child := os.fork()) == 0:
                with contextlib.suppress(BaseException):
                    work(number, number + 1, seed, Path(place))
                os._exit(0)
            os.waitpid(child, 0)
            told = Path(place) / "log.txt"
            lines[index] = told.read_text(encoding="utf-8").strip() if told.exists() else line
    (out / "log.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def result_of(out: Path, count: int) -> Result:
    """The log of the first files, counted."""
    result = Result()
    for line in (out / "log.txt").read_text(encoding="utf-8").splitlines()[:count]:
        number, name, seconds, peak, outcome = line.split("\t")
        result.outcomes[name.split("/")[0], outcome.split(":")[0]] += 1
        result.slowest_s = max(result.slowest_s, float(seconds))
        result.peak_mib = max(result.peak_mib, float(peak))
        if outcome not in FINE:
            result.findings.append((int(number), name, outcome))
    return result


def table(result: Result) -> str:
    """The counts as Markdown, and the findings below."""
    kinds = sorted({kind for _, kind in result.outcomes}, key=lambda kind: (kind not in FINE, kind))
    lines = [f"| reader | files | {' | '.join(kinds)} |", f"| --- | --- |{' --- |' * len(kinds)}"]
    for reader in sorted({reader for reader, _ in result.outcomes}):
        counts = [result.outcomes[reader, kind] for kind in kinds]
        lines.append(f"| {reader} | {sum(counts):,} | {' | '.join(f'{count:,}' for count in counts)} |")
    totals = [sum(result.outcomes[reader, kind] for reader in {r for r, _ in result.outcomes}) for kind in kinds]
    lines.append(f"| all | {sum(totals):,} | {' | '.join(f'{count:,}' for count in totals)} |")
    lines.append(f"\nSlowest file {result.slowest_s:.1f} s, largest worker {result.peak_mib:.0f} MiB.\n")
    seen = Counter((name, outcome) for _, name, outcome in result.findings)
    lines += [f"{count} x {name}: {outcome}" for (name, outcome), count in seen.most_common()]
    return "\n".join(lines) + "\n"


def show(number: int, seed: int, out: Path) -> None:
    """Reads one file again with the whole traceback; leaves it in OUT/shown."""
    folder = out / "shown" / str(number)
    shutil.rmtree(folder, ignore_errors=True)
    target = damage(number, seed, out / "inputs", folder)
    sys.stdout.write(f"{target.name}: {folder}\n")
    target.read(folder / target.opened)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/reader_fuzz"))
    parser.add_argument("--again", action="store_true", help="read the files of the findings once more")
    parser.add_argument("--show", type=int, metavar="NUMBER")
    parser.add_argument("--work", type=int, nargs=2, metavar=("START", "STOP"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if given.work is not None:
        work(*given.work, given.seed, given.out)
    elif given.show is not None:
        show(given.show, given.seed, given.out)
    elif given.again:
        again(given.seed, given.out)
        sys.stdout.write(table(result_of(given.out, given.count)))
    else:
        sys.stdout.write(table(fuzz(given.count, given.seed, given.out, first=given.first)))


if __name__ == "__main__":
    main()
