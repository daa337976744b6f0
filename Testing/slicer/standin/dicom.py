"""slicer.dicomDatabase (ctkDICOMDatabase.h) and DICOMLib.DICOMUtils, over pydicom: files by instance, tags as text."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.misc
import slicer
import vtk


class DICOMDatabase:
    """Which file holds an instance, and what its tags say."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}
        self._headers: dict[str, Any] = {}
        self.isOpen = True

    def add(self, folder: Path) -> list[str]:
        """The series found in a folder."""
        series = {}
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and pydicom.misc.is_dicom(path)):
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
        return (
            "\\".join(map(str, value))
            if isinstance(value, pydicom.multival.MultiValue)
            else ("" if value is None else str(value))
        )

    def _header(self, file: str) -> Any:
        if file not in self._headers:
            self._headers[file] = pydicom.dcmread(file, stop_before_pixels=True)
        return self._headers[file]


def importDicom(dicomDataItem: str, dicomDatabase: Any = None, copyFiles: bool = False) -> bool:
    slicer.dicomDatabase.add(Path(dicomDataItem))
    return True


DICOMUtils = types.SimpleNamespace(importDicom=importDicom)


def load_series(folder: Path, name: str) -> Any:
    """A volume of a folder of DICOM files, as DICOMScalarVolumePlugin.py loads it: sorted along the slice normal,
    read by vtkITKArchetypeImageSeriesScalarReader, its instances noted in an attribute."""
    slicer.dicomDatabase.add(folder)
    headers = {file: pydicom.dcmread(file, stop_before_pixels=True) for file in sorted(folder.glob("*.dcm"))}

    def along_normal(file: Path) -> float:
        header = headers[file]
        if "ImageOrientationPatient" not in header:
            return 0.0
        axes = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
        return float(np.dot(np.cross(*axes), np.array(header.ImagePositionPatient, dtype=float)))

    files = sorted(headers, key=along_normal)
    reader = slicer.vtkITKArchetypeImageSeriesScalarReader()
    reader.SetArchetype(str(files[0]))
    reader.SetSingleFile(0)
    for file in files:
        reader.AddFileName(str(file))
    reader.SetOutputScalarTypeToNative()
    reader.SetDesiredCoordinateOrientationToNative()
    reader.SetUseNativeOriginOn()
    reader.Update()
    image = vtk.vtkImageData()
    image.ShallowCopy(reader.GetOutput())
    image.SetSpacing(1, 1, 1)
    image.SetOrigin(0, 0, 0)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    node.SetRASToIJKMatrix(reader.GetRasToIjkMatrix())
    node.SetAndObserveImageData(image)
    node.SetAttribute("DICOM.instanceUIDs", " ".join(str(headers[file].SOPInstanceUID) for file in files))
    node.CreateDefaultDisplayNodes()
    return node
