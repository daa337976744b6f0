"""Finds, checks, installs and removes the Python that runs the backend; torch stays out of Slicer's own process.

Standard library and packaging only, Python 3.9 to 3.13. What takes time is a `Command` for QProcess, or a generator
(`removing`, and `WheelFolder.reading` in wheel_folder.py) that a timer advances for some 20 ms at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from HiResMedSynthPanel.wheel_folder import AGAIN, InstallationError, Wheel, read_requirements, satisfies

LOWEST_PYTHON = (3, 11)
OWNER = "made-by-hiresmedsynth.json"  # written first: this folder is ours to remove
COMPLETE = "complete.json"  # written last: a folder without it counts as absent
LOCK = "backend.lock"
LARGEST_OUTPUT = 2**20
LONGEST_WINDOWS_PATH = 259
DISK_MARGIN = 1.3  # byte code and file system blocks come on top of what the wheels unpack to

PROBE_SCRIPT = r"""
import sys
sys.path[:] = [entry for entry in sys.path if entry]
if sys.argv[1] not in sys.path:
    sys.path.insert(0, sys.argv[1])
import json
def say(**facts):
    print("\n" + json.dumps(dict(facts, hiresmedsynth_probe=1)), flush=True)
say(python=".".join(map(str, sys.version_info[:3])))
import importlib.metadata, importlib.util
versions = {}
for name in sys.argv[2:]:
    try:
        versions[name] = importlib.metadata.version(name) or ""
    except Exception:
        pass
say(versions=versions, library=importlib.util.find_spec("HiResMedSynthLib") is not None)
if "torch" in versions:
    try:
        import torch
        cuda = torch.cuda.is_available()
        say(device="cuda " + torch.cuda.get_device_name(0) if cuda else "cpu")
    except BaseException as error:
        say(device_error="%s: %s" % (type(error).__name__, error))
"""


@dataclass(frozen=True)
class Command:
    """A program to run: what it is for, its argument list (program first), its whole environment."""

    purpose: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class Candidate:
    """An interpreter that may run the backend, and where it was found."""

    origin: str
    interpreter: Path


@dataclass(frozen=True)
class Probe:
    """What an interpreter said about itself.

    Args:
        interpreter: the program asked.
        python: its version; "" if it gave no answer.
        versions: installed version of each required package that it has.
        device: "cuda NAME" or "cpu"; "" if torch was not there or took too long to load.
        missing: requirements that are absent or too old.
        problem: why the backend can't run with it and what to do; "" if it can.
        details: the end of what it printed, for the report.
    """

    interpreter: Path
    python: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    device: str = ""
    missing: tuple[str, ...] = ()
    problem: str = ""
    details: str = ""

    @property
    def usable(self) -> bool:
        """Whether the backend can run with it."""
        return not self.problem

    @property
    def sentence(self) -> str:
        """One line for the panel."""
        device = f"computes on {self.device}" if self.device else "torch is slow to load, the device shows later"
        return self.problem or f"Python {self.python} with torch {self.versions['torch']}; {device}."


def child_environment(library_folder: Path | None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of every Python that we start; Slicer's own Python and pip settings must not reach it.

    Args:
        library_folder: the folder that holds HiResMedSynthLib; None if the program doesn't need it.
        base: start from these (in Slicer: its start-up environment, free of Slicer's libraries); default os.environ.
    """
    unwanted = ("PYTHON", "PIP_", "VIRTUAL_ENV", "__PYVENV")
    kept = {k: v for k, v in (os.environ if base is None else base).items() if not k.upper().startswith(unwanted)}
    kept.update(PYTHONNOUSERSITE="1", PYTHONSAFEPATH="1", PYTHONUTF8="1", PIP_CONFIG_FILE=os.devnull)
    return kept if library_folder is None else {**kept, "PYTHONPATH": str(library_folder)}


def probe_command(interpreter: Path, library_folder: Path, base: Mapping[str, str] | None = None) -> Command:
    """The command that asks an interpreter what it has; `read_probe` reads what it prints."""
    from packaging.requirements import Requirement

    names = [Requirement(line).name for line in read_requirements()]
    arguments = (str(interpreter), "-c", PROBE_SCRIPT, str(library_folder), *names)
    return Command("ask the interpreter", arguments, child_environment(library_folder, base))


def read_probe(output: str, returncode: int | None, interpreter: Path) -> Probe:
    """What a finished or stopped probe command tells; lines that aren't its own are ignored.

    Args:
        output: standard output and error.
        returncode: None if it was stopped because it took too long.
        interpreter: the program that was asked.
    """
    from packaging.requirements import Requirement

    facts: dict[str, object] = {}
    for line in (line for line in output.splitlines() if "hiresmedsynth_probe" in line):
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(line)
            if isinstance(said, dict):
                facts.update(said)
    python = str(facts.get("python", ""))
    said_versions = facts.get("versions")
    versions = {str(k): str(v) for k, v in said_versions.items()} if isinstance(said_versions, dict) else {}
    required = [Requirement(line) for line in read_requirements()]
    missing = tuple(str(r) for r in required if not satisfies(versions.get(r.name), r.specifier))
    how = "took too long and was stopped" if returncode is None else f"ended with exit code {returncode}"
    problem = ""
    if not re.fullmatch(r"\d+\.\d+\.\d+", python):
        problem = (
            f"{interpreter} didn't answer like a Python interpreter ({how}). Choose another one in the field Python."
        )
    elif tuple(map(int, python.split(".")[:2])) < LOWEST_PYTHON:
        lowest = ".".join(map(str, LOWEST_PYTHON))
        problem = f"{interpreter} is Python {python}; the backend needs {lowest} or newer. Choose a newer one."
    elif said_versions is None:
        problem = (
            f"{interpreter} gave only half an answer ({how}). Try again, or choose another one in the field Python."
        )
    elif missing:
        problem = f"{interpreter} lacks {', '.join(missing)}. Install the backend from a folder of wheels."
    elif not facts.get("library"):
        problem = f"{interpreter} doesn't find HiResMedSynthLib. Install the extension again."
    elif "device_error" in facts or ("device" not in facts and returncode is not None):
        why = facts.get("device_error", how)
        problem = f"torch is installed in {interpreter} but can't be loaded ({why}). Remove and install it again."
    return Probe(interpreter, python, versions, str(facts.get("device", "")), missing, problem, output[-4000:])


def not_started(interpreter: Path, reason: str) -> Probe:
    """The probe of a program that couldn't even be started."""
    return Probe(
        interpreter, problem=f"{interpreter} can't be started ({reason}). Choose another one in the field Python."
    )


def probe(
    interpreter: Path, library_folder: Path, timeout_s: float = 10.0, base: Mapping[str, str] | None = None
) -> Probe:
    """Asks an interpreter and waits for the answer; never raises for what the program does."""
    command = probe_command(interpreter, library_folder, base)
    try:
        process = subprocess.Popen(
            command.arguments,
            env=dict(command.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return not_started(interpreter, getattr(error, "strerror", None) or str(error))
    assert process.stdout is not None
    output = bytearray()
    reader = threading.Thread(target=_collect, args=(process.stdout.fileno(), output), daemon=True)
    reader.start()
    returncode = None
    try:
        returncode = process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)  # its children too: PythonSlicer is only a launcher
        else:
            process.kill()
        process.wait()
    reader.join(1.0)
    if not reader.is_alive():
        process.stdout.close()
    return read_probe(bytes(output).decode("utf-8", "replace"), returncode, interpreter)


def _collect(pipe: int, output: bytearray) -> None:
    """Reads a pipe to its end, or until it is too much: then the program stands still and runs into its time limit."""
    while len(output) < LARGEST_OUTPUT:
        chunk = os.read(pipe, 65536)
        if not chunk:
            return
        output += chunk


def environment_folder(user_data: Path) -> Path:
    """Where the backend's virtual environment lives."""
    return user_data / "HiResMedSynth" / "backend"


def environment_python(environment: Path) -> Path:
    """The interpreter of a virtual environment."""
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def is_complete(environment: Path) -> bool:
    """Whether an installation there was finished; one that was cut off counts as absent."""
    return (environment / COMPLETE).is_file() and environment_python(environment).is_file()


def interpreter_in(path: Path) -> Path:
    """The interpreter of a virtual environment whose folder was named; any other path as it is."""
    return environment_python(path) if path.is_dir() else path


def candidates(settings_interpreter: str, user_data: Path, slicer_python: Path | None = None) -> list[Candidate]:
    """The interpreters to probe, best first: the one in the settings, our virtual environment, PythonSlicer."""
    found = []
    if settings_interpreter.strip():
        found.append(Candidate("chosen in the settings", interpreter_in(Path(settings_interpreter.strip()))))
    if is_complete(environment_folder(user_data)):
        found.append(Candidate("installed from a folder", environment_python(environment_folder(user_data))))
    bundled = shutil.which("PythonSlicer") if slicer_python is None else str(slicer_python)
    return [*found, Candidate("Slicer's own Python", Path(bundled))] if bundled else found


def prepare(environment: Path, wheels: list[Wheel], windows: bool = os.name == "nt") -> None:
    """Makes the folder of a new environment with our mark and the lock of hashes in it.

    Raises:
        InstallationError: something else is there, the disk is too full, or the path too long for Windows.
    """
    if os.path.lexists(environment) and not (environment.is_dir() and not any(environment.iterdir())):
        raise InstallationError("this folder is taken", where=environment, remedy="Remove the old installation first.")
    environment.mkdir(parents=True, exist_ok=True)
    needs = int(sum(wheel.unpacked for wheel in wheels) * DISK_MARGIN)
    free = shutil.disk_usage(environment).free
    longest = len(str(environment / "Lib" / "site-packages")) + 1 + max((w.longest_path for w in wheels), default=0)
    if free < needs or (windows and longest > LONGEST_WINDOWS_PATH):
        environment.rmdir()
        if free < needs:
            what, remedy = f"needs {size_text(needs)}, {size_text(free)} are free", "Free some space, then try again."
        else:
            what, remedy = "its path is too long for Windows", "Choose a folder with a shorter path."
        raise InstallationError(f"the installation doesn't fit here: {what}", where=environment, remedy=remedy)
    (environment / OWNER).write_text(json.dumps({"made_by": "HiResMedSynth"}), encoding="utf-8")
    lock = "".join(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n" for wheel in wheels)
    (environment / LOCK).write_text(lock, encoding="utf-8")


def install_commands(
    interpreter: Path, folder: Path, environment: Path, base: Mapping[str, str] | None = None
) -> list[Command]:
    """The commands that fill a prepared environment, in order; afterwards probe it, then call `complete`.

    The environment gets no pip of its own (`ensurepip` is often missing): the interpreter's pip installs into it.
    """
    variables = child_environment(None, base)
    python = str(interpreter)
    pip = (python, "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-input", "--no-cache-dir")
    into = ("--python", str(environment_python(environment)), "install", "--no-index")
    only = ("--find-links", str(folder), "--only-binary", ":all:", "--require-hashes", "--progress-bar", "off")
    return [
        Command("make the environment", (python, "-m", "venv", "--without-pip", str(environment)), variables),
        Command("install the packages", (*pip, *into, *only, "-r", str(environment / LOCK)), variables),
    ]


def explain(output: str, returncode: int) -> InstallationError:
    """What a failed install command means for the user; the output itself belongs into the details."""
    causes = (
        ("DO NOT MATCH THE HASHES", "a wheel was changed since it was checked", AGAIN),
        ("No matching distribution found", "a wheel is missing or doesn't fit this Python", AGAIN),
        ("not a supported wheel on this platform", "a wheel doesn't fit this machine", AGAIN),
        ("No space left", "the disk is full", "Free some space, then install again."),
        ("not enough space", "the disk is full", "Free some space, then install again."),
        ("ermission denied", "a file may not be written", "Ask your IT department, or choose another folder."),
        ("Access is denied", "a file may not be written", "Ask your IT department, or choose another folder."),
        ("No module named", "this Python lacks pip or venv", "Choose a Python from a full installation."),
    )
    for sign, what, remedy in causes:
        if sign in output:
            return InstallationError(f"the installation stopped: {what}", remedy=remedy)
    return InstallationError(
        f"the installation stopped with exit code {returncode}", remedy="Install again; if it repeats, send the report."
    )


def complete(environment: Path, answer: Probe) -> None:
    """Declares an environment finished; from now on it is a candidate.

    Raises:
        InstallationError: its interpreter can't run the backend.
    """
    if not answer.usable or answer.interpreter != environment_python(environment):
        raise InstallationError("the new installation doesn't work", where=environment, remedy=answer.problem)
    part = environment / (COMPLETE + ".part")
    facts = {"python": answer.python, "versions": dict(answer.versions), "bytes": disk_size(environment)}
    part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    part.replace(environment / COMPLETE)


def remove(environment: Path) -> None:
    """`removing` in one go."""
    for _ in removing(environment):
        pass


def removing(environment: Path) -> Iterator[int]:
    """Removes an environment, complete or not, step by step; yields how many entries are gone.

    Raises:
        InstallationError: the folder doesn't carry our mark (nothing is touched), or a file is in use.
    """
    if not os.path.lexists(environment):
        return
    owner = environment / OWNER
    try:
        ours = json.loads(owner.read_text(encoding="utf-8"))["made_by"] == "HiResMedSynth"
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours or environment.is_symlink():
        raise InstallationError(
            "this folder wasn't made by HiResMedSynth, nothing was removed", where=environment, remedy="Check the path."
        )
    try:
        (environment / COMPLETE).unlink(missing_ok=True)  # from now on it counts as absent, whatever happens
        count = 0
        for folder, folders, files in os.walk(environment, topdown=False):
            for path in (Path(folder) / name for name in (*files, *folders)):
                if path != owner:
                    _delete(path)
                count += 1
                yield count
        owner.unlink()
        environment.rmdir()
    except OSError as error:
        where = error.filename or environment
        remedy = "Stop the backend or restart Slicer, then remove again."
        raise InstallationError("a file can't be removed", where=where, remedy=remedy) from error


def _delete(path: Path) -> None:
    remove_one = path.rmdir if path.is_dir() and not path.is_symlink() else path.unlink
    try:
        remove_one()
    except PermissionError:  # read-only on Windows
        path.chmod(stat.S_IRWXU)
        remove_one()


def disk_size(folder: Path) -> int:
    """Bytes of all files below a folder; 0 if it isn't there."""
    return sum((Path(top) / name).lstat().st_size for top, _, files in os.walk(folder) for name in files)


def size_text(size: int) -> str:
    """A size for people: "1.7 GB", "35 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 1):.0f} MB"
