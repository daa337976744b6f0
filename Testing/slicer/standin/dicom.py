"""slicer.dicomDatabase (ctkDICOMDatabase.h) and DICOMLib.DICOMUtils, over pydicom: files by instance, tags as text."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pydicom
import slicer


class DICOMDatabase:
    """Which file holds an instance, and what its tags say."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._headers: dict[str, Any] = {}
        self.isOpen = True

    def add(self, folder: Path) -> list[str]:
        """The series found in a folder."""
        series = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            header = pydicom.dcmread(file, stop_before_pixels=True)
            self._files[str(header.SOPInstanceUID)] = file
            series[str(header.SeriesInstanceUID)] = True
        return list(series)

    def fileForInstance(self, uid: str) -> str:
        return str(self._files.get(uid, ""))

    def instancesForSeries(self, uid: str) -> tuple[str, ...]:
        return tuple(
            name for name, file in self._files.items() if str(self._header(str(file)).SeriesInstanceUID) == uid
        )

    def fileValue(self, file: str, tag: str) -> str:
        element = self._header(file).get(pydicom.tag.Tag(tag.replace(",", "")))
        if element is None or element.VR == "SQ":
            return ""
        value = element.value
        return "\\".join(map(str, value)) if isinstance(value, pydicom.multival.MultiValue) else str(value or "")

    def _header(self, file: str) -> Any:
        if file not in self._headers:
            self._headers[file] = pydicom.dcmread(file, stop_before_pixels=True)
        return self._headers[file]


def importDicom(dicomDataItem: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
    slicer.dicomDatabase.add(Path(dicomDataItem))
    return True


DICOMUtils = types.SimpleNamespace(importDicom=importDicom)


def load_series(folder: Path, name: str) -> Any:
    """A volume read from a folder of DICOM files, by the reader that Slicer uses, with its instances noted."""
    import vtkITK  # noqa: F401  (part of slicer-core where it stands alone)

    raise NotImplementedError
