"""slicer.packaging (Base/Python/slicer/packaging.py): looks, but never installs in tests."""

from __future__ import annotations

from importlib import metadata

from packaging.requirements import Requirement


def pip_check(requirement: str) -> bool:
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def pip_ensure(requirements: list[str], **_options: object) -> None:
    missing = [text for text in requirements if not pip_check(text)]
    if missing:
        raise RuntimeError(f"not installed in tests: {missing}")
