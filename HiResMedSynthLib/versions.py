"""Versions of this product and of the packages that touch pixels, as they stand in case.json and error reports."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from HiResMedSynthLib import __version__

PACKAGES = ("numpy", "scipy", "SimpleITK", "opencv-python-headless", "pydicom", "highdicom")


@cache
def installed_versions() -> dict[str, str]:
    """Package name -> installed version; packages that are missing are left out."""
    versions = {"hiresmedsynth": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
