"""A folder of wheels brought in on a disk: checked against SHA256SUMS and this machine, sized, and searched for gaps.

Standard library and packaging only, Python 3.9 to 3.13.
"""

from __future__ import annotations

import hashlib
import platform
import re
import zipfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from email.parser import BytesParser
from pathlib import Path

from HiResMedSynthLib.errors import HiResMedSynthError

REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "backend-requirements.txt"
SUMS = "SHA256SUMS"
LARGEST_METADATA = 2**23
AGAIN = "Copy the folder again, or ask whoever made it to make it anew (docs/offline_install.md)."


class InstallationError(HiResMedSynthError):
    """The backend's Python can't be found, installed or removed."""


def read_requirements(file: Path = REQUIREMENTS) -> list[str]:
    """The requirement lines of a file, without comments."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def satisfies(version: str | None, specifier: object) -> bool:
    """Whether a version is there and within the specifier."""
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        return bool(version) and SpecifierSet(str(specifier)).contains(Version(str(version)), prereleases=True)
    except InvalidVersion:
        return False


@dataclass(frozen=True)
class Wheel:
    """One checked wheel; sizes in bytes, `requires` as in its metadata."""

    file_name: str
    name: str
    version: str
    sha256: str
    packed: int
    unpacked: int
    longest_path: int
    requires: tuple[str, ...]


@dataclass(frozen=True)
class WheelFolder:
    """A folder of wheels, each of which agrees with SHA256SUMS and fits this machine and `python`."""

    folder: Path
    python: str
    wheels: Mapping[str, Wheel]

    @classmethod
    def read(cls, folder: Path, python: str = "") -> WheelFolder:
        """`reading` in one go."""
        steps = cls.reading(folder, python)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                checked: WheelFolder = end.value
                return checked

    @classmethod
    def reading(cls, folder: Path, python: str = "") -> Generator[float, None, WheelFolder]:
        """Checks a folder step by step; yields the fraction done, returns the WheelFolder.

        Args:
            folder: holds the wheels and SHA256SUMS.
            python: version of the interpreter to install for, "3.12.10"; "" means the running one.

        Raises:
            InstallationError: for the first wheel that is damaged, unlisted, foreign to this machine or no wheel.
        """
        python = python or platform.python_version()
        folder = folder.resolve()
        sums = _read_sums(folder)
        tags = _tags(python)
        total = sum((folder / name).stat().st_size for name in sums) or 1
        done = 0
        wheels: dict[str, Wheel] = {}
        for name, expected in sorted(sums.items()):
            digest = hashlib.sha256()
            with (folder / name).open("rb") as stream:
                while chunk := stream.read(2**20):
                    digest.update(chunk)
                    done += len(chunk)
                    yield min(done / total, 1.0)
            if digest.hexdigest() != expected:
                raise InstallationError(f"this wheel isn't the one in {SUMS}", where=folder / name, remedy=AGAIN)
            wheel = _read_wheel(folder / name, expected, tags, python)
            if wheel.name in wheels:
                other = wheels[wheel.name].file_name
                raise InstallationError(
                    f"there are two wheels of {wheel.name}: {other} and {name}", where=folder, remedy=AGAIN
                )
            wheels[wheel.name] = wheel
        return cls(folder, python, wheels)

    def select(self, requirements: Path = REQUIREMENTS) -> tuple[list[Wheel], list[str]]:
        """The wheels that the requirements need, with what these need in turn; and what is missing, for the user."""
        from packaging.markers import default_environment
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name

        machine: dict[str, str] = {key: str(value) for key, value in default_environment().items()}
        machine.update(python_version=".".join(self.python.split(".")[:2]), python_full_version=self.python)
        needed: dict[str, Wheel] = {}
        missing: dict[str, None] = {}
        seen = set()
        waiting: list[tuple[str, str, tuple[str, ...]]]
        waiting = [(line, "the backend", ("",)) for line in read_requirements(requirements)]
        while waiting:
            entry = waiting.pop()
            if entry in seen:
                continue
            seen.add(entry)
            line, asker, extras = entry
            requirement = Requirement(line)
            marker = requirement.marker
            if marker is not None and not any(marker.evaluate({**machine, "extra": extra}) for extra in extras):
                continue
            wheel = self.wheels.get(canonicalize_name(requirement.name))
            if wheel is None or not satisfies(wheel.version, requirement.specifier):
                has = "" if wheel is None else f", the folder has {wheel.version}"
                missing[f"{requirement.name}{requirement.specifier} (for {asker}{has})"] = None
                continue
            needed[wheel.name] = wheel
            waiting += [(below, wheel.name, ("", *sorted(requirement.extras))) for below in wheel.requires]
        return sorted(needed.values(), key=lambda wheel: wheel.name), sorted(missing)


def _read_sums(folder: Path) -> dict[str, str]:
    """File name -> sha256 of a folder whose wheels are exactly those listed."""
    try:
        text = (folder / SUMS).read_text(encoding="utf-8-sig")
        present = {entry.name for entry in folder.iterdir()}
    except (OSError, UnicodeDecodeError) as error:
        raise InstallationError(f"there is no readable {SUMS} in this folder", where=folder, remedy=AGAIN) from error
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = re.fullmatch(r"([0-9A-Fa-f]{64}) [ *](?:\./)?(.+)", line)
        if match is None or sums.get(match[2], match[1].lower()) != match[1].lower():
            raise InstallationError(f"line {number} of {SUMS} can't be understood", where=folder, remedy=AGAIN)
        if not re.fullmatch(r"\w[\w.+!-]*\.whl", match[2], re.ASCII):
            raise InstallationError(f"line {number} of {SUMS} names something else than a wheel in this folder",
                                    where=folder / SUMS, remedy=AGAIN)  # fmt: skip
        if (folder / match[2]).is_symlink() or not (folder / match[2]).is_file():
            raise InstallationError("a listed wheel is missing", where=folder / match[2], remedy=AGAIN)
        sums[match[2]] = match[1].lower()
    sources = {name for name in present if name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".zip", ".egg"))}
    if sources:
        raise InstallationError("a package here is no wheel", where=folder / min(sources), remedy=AGAIN)
    unlisted = {name for name in present if name.lower().endswith(".whl")} - set(sums)
    if unlisted or not sums:
        where = folder / min(unlisted, default=SUMS)
        raise InstallationError(f"{SUMS} doesn't list each wheel of this folder", where=where, remedy=AGAIN)
    return sums


def _tags(python: str) -> frozenset[object]:
    """The wheel tags that fit this machine and a version of CPython."""
    from packaging.tags import compatible_tags, cpython_tags

    version = tuple(map(int, python.split(".")[:2]))
    name = "cp" + "".join(map(str, version))
    return frozenset([*cpython_tags(version), *compatible_tags(version, interpreter=name)])


def _read_wheel(file: Path, sha256: str, tags: frozenset[object], python: str) -> Wheel:
    """A wheel's facts, from its name, its zip directory and its metadata; nothing is unpacked."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import InvalidVersion, Version

    try:
        name, version, _, fits = parse_wheel_filename(file.name)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            inner = [e for e in entries if re.fullmatch(r"[^/\\]+\.dist-info/METADATA", e.filename)]
            if len(inner) != 1 or inner[0].file_size > LARGEST_METADATA:
                raise InstallationError("this file holds no package description", where=file, remedy=AGAIN)
            facts = BytesParser().parsebytes(archive.read(inner[0]), headersonly=True)
        requires = tuple(str(Requirement(str(line))) for line in facts.get_all("Requires-Dist", []))
        same = canonicalize_name(str(facts["Name"])) == name and Version(str(facts["Version"])) == version
        right_python = satisfies(python, facts.get("Requires-Python", ""))
    except (InvalidWheelFilename, InvalidRequirement, InvalidVersion, zipfile.BadZipFile, ValueError, OSError) as error:
        raise InstallationError("this wheel is damaged or no wheel", where=file, remedy=AGAIN) from error
    paths = [entry.filename for entry in entries]
    if not same or any(p.startswith("/") or "\\" in p or ":" in p or ".." in p.split("/") for p in paths):
        raise InstallationError("this wheel isn't what its name says", where=file, remedy=AGAIN)
    if not right_python or fits.isdisjoint(tags):
        raise InstallationError(
            f"this wheel doesn't fit Python {python} on this machine ({platform.system()} {platform.machine()})",
            where=file,
            remedy="Ask for a folder made for this system and Python (docs/offline_install.md).",
        )
    unpacked, longest = sum(entry.file_size for entry in entries), max(map(len, paths))
    return Wheel(file.name, str(name), str(version), sha256, file.stat().st_size, unpacked, longest, requires)
