"""DICOM files -> MedicalImage: grouping into series, sorting, decoding, rescaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.image import MedicalImage, SpacingSource, Window
from HiResMedSynthLib.read_bounds import refuse_deflated_bomb
from HiResMedSynthLib.read_header import (
    DECODING,
    KEYWORDS,
    OF_EACH_SLICE,
    SliceHeader,
    header_facts,
    is_radiograph,
    modality_of,
    numbers,
    slice_headers,
    whole_number,
)
from HiResMedSynthLib.read_oddities import is_lossy, note_header, photometric_of
from HiResMedSynthLib.read_order import median_gap, one_stack, positions_of, sorted_along_normal
from HiResMedSynthLib.read_pixels import stored_values, to_modality_units
from HiResMedSynthLib.read_quietly import quietly

TELLS_APART = ("SeriesInstanceUID", "InstanceNumber", "ImagePositionPatient")
NO_BACKGROUNDS = (  # pictures that show marks or doses, never a background
    "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
)


def looks_like_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are DICOM's: with the preamble, or a bare data set of group 0002 or 0008."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x02\x00", b"\x08\x00")


def read_dicom_files(
    files: Sequence[Path],
    *,
    where: Path,
    spacing_mm: tuple[float, float] | None,
    series: str | None,
    slice_index: int | None,
) -> MedicalImage:
    """The one series in these files as an image, slices ascending along their normal.

    With `slice_index` the headers of all files are read, but the pixels of that slice only. Radiographs of one series
    are no stack: they have an order, but each is an image of its own.

    Raises:
        ReadError: no picture, several series, several radiographs and none named, damaged or unsupported pixels.
    """
    oddities: list[str] = []
    headers = _one_series(_headers(files, where, oddities), where, series)
    if _are_radiographs(headers):
        headers.sort(key=lambda header: (header.instance_number, header.path))
        _refuse_several(headers, where, slice_index)
    else:
        _refuse_several_patients(headers, where)
        headers = sorted_along_normal(one_stack(headers, oddities), oddities)
    if slice_index is not None:
        if not 0 <= slice_index < len(headers):
            raise ReadError(
                f"slice {slice_index} is not in 0..{len(headers) - 1}", where=where, remedy="Name one of these."
            )
        chosen = [headers[slice_index]]
    else:
        chosen = headers
    _drop_unreadable_values(chosen[0].data, list(chosen[0].data.keys()), oddities)
    _refuse_colour(chosen[0])  # before its pixels, of which there are three times as many
    return assembled(
        chosen, stored_values(chosen), spacing_mm=spacing_mm, thickness=median_gap(headers), oddities=oddities
    )


@dataclass(frozen=True, kw_only=True)
class SeriesFiles:
    """The files of a series; how many of its slices `read_dicom_files` takes; whether it holds radiographs instead."""

    files: tuple[Path, ...]
    slices: int
    radiographs: bool


def series_of(files: Sequence[Path], *, where: Path) -> dict[str, SeriesFiles]:
    """SeriesInstanceUID -> its files, by the headers, sorted.

    Raises:
        ReadError: no picture, or a file that can't be read.
    """
    groups: dict[str, list[SliceHeader]] = {}
    for header in _headers(files, where, []):
        groups.setdefault(str(header.data.get("SeriesInstanceUID") or ""), []).append(header)
    for group in groups.values():
        if not _are_radiographs(group):
            _refuse_several_patients(group, where)
    return {
        uid: SeriesFiles(
            files=tuple(dict.fromkeys(header.path for header in group)),
            slices=len(one_stack(group, [])),
            radiographs=_are_radiographs(group),
        )
        for uid, group in sorted(groups.items())
    }


def assembled(
    chosen: Sequence[SliceHeader],
    stored: NDArray[Any],
    *,
    spacing_mm: tuple[float, float] | None = None,
    thickness: float | None = None,
    oddities: list[str],
) -> MedicalImage:
    """The image of some slices in their order, from their headers and stored values.

    Args:
        chosen: headers, one a slice.
        stored: stored values `[slice, row, column]`; may be changed in place.
        spacing_mm: pixel spacing where the header gives none.
        thickness: slice thickness where the header gives none.
        oddities: what was unusual so far; grows.

    Raises:
        ReadError: colour, a rescale or spacing that can't be.
    """
    first = chosen[0]
    data = first.data
    _refuse_colour(first)
    spacing, source = _spacing(first, spacing_mm, oddities)
    modality = modality_of(data)
    pixels, rescale, units = to_modality_units(stored, chosen, modality, oddities)
    bits = whole_number(data.get("BitsStored"), 16)
    signed = whole_number(data.get("PixelRepresentation"), 0) == 1
    padding = numbers(data.get("PixelPaddingValue"))
    note_header(first, modality, oddities)
    photometric = photometric_of(data, oddities)
    image = MedicalImage(
        pixels=pixels,
        modality=modality,
        units="HU" if units == "HU" else "stored",
        pixel_spacing_mm=spacing,
        spacing_source=source,
        positions_lps_mm=positions_of(list(chosen), oddities),
        directions_lps=np.array(first.orientation).reshape(2, 3) if first.orientation else np.eye(3)[:2],
        slice_thickness_mm=first.thickness or thickness,
        photometric=photometric,
        rescale=rescale or (1.0, 0.0),
        bits_stored=None if rescale is None else bits,
        stored_signed=signed,
        padding_value=padding[0] * rescale[0] + rescale[1] if padding and rescale else None,
        window=_window(first, units),
        facts=replace(header_facts(data), lossy_image_compression="01" if is_lossy(data) else None),
        oddities=tuple(dict.fromkeys(oddities)),
    )
    if image.volume_problem is not None:
        image = replace(image, oddities=(*image.oddities, image.volume_problem))
    return image


def _headers(files: Sequence[Path], where: Path, oddities: list[str]) -> list[SliceHeader]:
    """Headers of all pictures among the files; what is no picture is counted."""
    import pydicom
    from pydicom.errors import InvalidDicomError
    from pydicom.tag import Tag

    headers: list[SliceHeader] = []
    others, no_picture, seen = 0, "", set()
    tags = [Tag(keyword) for keyword in (*KEYWORDS, *DECODING, "PatientID")]  # looked up once, not for each file
    patients: dict[str, int] = {"": 0}
    of_each = [Tag(keyword) for keyword in OF_EACH_SLICE]
    for path in files:
        try:
            with path.open("rb") as stream, quietly():
                if not looks_like_dicom(stream.read(132)):
                    others += 1
                    continue
                stream.seek(0)
                refuse_deflated_bomb(path)
                data = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=tags, force=True)
                patient = patients.setdefault(_taken_patient_id(data), len(patients))
                pixels_at = None if _is_deflated(data) else stream.tell()
                _drop_unreadable_values(data, of_each, oddities)
                shown = "Rows" in data and "Columns" in data and data.get("SOPClassUID") not in NO_BACKGROUNDS
                found = slice_headers(path, data, pixels_at) if shown else []
        except (OSError, ReadError):
            raise
        except (InvalidDicomError, EOFError):
            others += 1
            continue
        except Exception as error:  # pydicom raises whatever its parsing meets in a damaged file
            raise ReadError(
                f"its header is damaged ({type(error).__name__})",
                where=path,
                remedy="Copy the file anew from its source.",
            ) from error
        uid = str(data.get("SOPInstanceUID") or "")
        # poor anonymisers give all files one UID: a copy agrees in the rest too
        picture = (uid, patient, *(str(data.get(keyword)) for keyword in TELLS_APART))
        if not found:
            no_picture = _kind(data)
            others += 1
        elif uid and picture in seen:
            oddities.append("files that repeat another were left out")
        else:
            seen.add(picture)
            headers.extend(replace(header, patient=patient) for header in found)
    if not headers:
        if (where / "case.json").is_file() and (where / "dicom").is_dir():
            background = where / "dicom_background"
            without = f", or the one without lesions: {background}" if background.is_dir() else ""
            raise ReadError(
                "this is the folder of a composed case",
                where=where,
                remedy=f"Give the series in it: {where / 'dicom'}{without}.",
            )
        if no_picture:
            raise ReadError(
                f"it holds no picture that can be read as slices ({no_picture})",
                where=where,
                remedy="Give the CT, MR or radiograph itself, single- or multi-frame with positions.",
            )
        raise ReadError(
            "there is no DICOM picture",
            where=where,
            remedy="Name the folder of one series; a NIfTI, NRRD, MHA, PNG, TIFF or JPEG file is named itself.",
        )
    if others:
        oddities.append(f"{others} other file(s) in the folder were left out")
    return headers


def _drop_unreadable_values(data: Any, tags: Sequence[int], oddities: list[str]) -> None:
    """Removes those of some values that pydicom can't convert, so that none of them fails later; notes that it did."""
    bad = []
    for tag in tags:
        try:
            if tag in data:
                data[tag]
        except Exception:  # pydicom converts on first access, and raises what the value makes it raise
            bad.append(tag)
    for tag in bad:
        del data[tag]
    if bad:
        oddities.append("header values that can't be read were ignored")


def _taken_patient_id(data: Any) -> str:
    """The Patient ID, taken out of the header: it tells files of two patients apart and gets no further."""
    if "PatientID" not in data:
        return ""
    given = data.get_item("PatientID").value  # as it stands in the file: no character set can spoil it
    del data.PatientID
    return (given.decode("latin-1") if isinstance(given, bytes) else str(given or "")).strip(" \0")


def _is_deflated(data: Any) -> bool:
    """Whether the whole data set was compressed, so that no place in the file is one in the data set."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    return bool(data.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian)


def _kind(data: Any) -> str:
    from pydicom.uid import UID

    uid = str(data.get("SOPClassUID") or "")
    name = UID(uid).name if uid else ""
    return name if name and name != uid else "unknown kind"


def _one_series(headers: list[SliceHeader], where: Path, series: str | None) -> list[SliceHeader]:
    """The headers of the series that was asked for; several and none asked for are listed and refused."""
    groups: dict[str, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(str(header.data.get("SeriesInstanceUID") or ""), []).append(header)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    if series is not None:
        for number, (uid, group) in enumerate(ordered, start=1):
            if series in (str(number), uid):
                return group
    elif len(ordered) == 1:
        return ordered[0][1]
    listing = "; ".join(
        f"{number}: {modality_of(group[0].data)}, {len(group)} pictures of {rows} x {columns}"
        + (f", {group[0].spacing[0]:g} x {group[0].spacing[1]:g} mm" if group[0].spacing else "")
        for number, (_, group) in enumerate(ordered, start=1)
        for rows, columns in [group[0].shape]
    )
    problem = f"there is no series '{series}'" if series is not None else f"there are {len(ordered)} series"
    raise ReadError(f"{problem} ({listing})", where=where, remedy="Choose one with --series NUMBER.")


def _are_radiographs(headers: Sequence[SliceHeader]) -> bool:
    """Whether the pictures of a series are projections, which are never stacked, whatever positions they claim."""
    return any(is_radiograph(header.data) for header in headers)


def _refuse_several_patients(headers: Sequence[SliceHeader], where: Path) -> None:
    patients = len({header.patient for header in headers} - {0})
    if patients > 1:
        raise ReadError(
            f"this series holds slices of {patients} patients (by their Patient IDs), which are no stack",
            where=where,
            remedy="Put the files of each patient into a folder of their own.",
        )


def _refuse_several(headers: Sequence[SliceHeader], where: Path, slice_index: int | None) -> None:
    if len(headers) == 1 or slice_index is not None:
        return
    shapes = [header.shape for header in headers]
    listing = ", ".join(f"{index}: {rows} x {columns}" for index, (rows, columns) in enumerate(shapes))
    raise ReadError(
        f"this series holds {len(headers)} radiographs, which are no stack ({listing})",
        where=where,
        remedy="Name one with --slice NUMBER, or give its file.",
    )


def _spacing(
    header: SliceHeader, given: tuple[float, float] | None, oddities: list[str]
) -> tuple[tuple[float, float] | None, SpacingSource]:
    spacing = header.spacing
    if spacing is None:
        if given is None:
            oddities.append("the pixel spacing is unknown")
        return None, "unknown"
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        if given is not None:
            oddities.append(f"the header's pixel spacing of {spacing[0]:g} x {spacing[1]:g} mm can't be")
            return None, "unknown"
        raise ReadError(
            f"its pixel spacing is {spacing[0]:g} x {spacing[1]:g} mm",
            where=header.path,
            remedy="Give the true one with --spacing-mm ROW[,COLUMN].",
        )
    if header.spacing_is == "ImagerPixelSpacing":
        oddities.append("the pixel spacing is that at the detector: the body is magnified")
    elif header.spacing_is == "NominalScannedPixelSpacing":
        oddities.append("the pixel spacing is that of the film scanner")
    if max(spacing) > 1.01 * min(spacing):
        oddities.append(f"pixels are not square ({spacing[0]:g} x {spacing[1]:g} mm)")
    return spacing, "header"


def _refuse_colour(header: SliceHeader) -> None:
    photometric = str(header.data.get("PhotometricInterpretation") or "")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ReadError(
            f"this is a colour image ({photometric or 'no photometric interpretation'})",
            where=header.path,
            remedy="Give a grey image (MONOCHROME1 or MONOCHROME2).",
        )


def _window(header: SliceHeader, units: str) -> Window | None:
    """The stored window in the units of the pixels."""
    window = header.window
    if window is None or units == "HU" or header.slope == 0 or (header.slope, header.intercept) == (1.0, 0.0):
        return window
    return Window(center=(window.center - header.intercept) / header.slope, width=window.width / abs(header.slope))
