"""What was measured of each lesion, as a DICOM Structured Report by template TID 1500 (PS3.16), by highdicom."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from HiResMedSynthLib import __version__
from HiResMedSynthLib.case import PlacedLesion
from HiResMedSynthLib.compose import Composition
from HiResMedSynthLib.export.defined_terms import hanging
from HiResMedSynthLib.export.patient import MANUFACTURER, MODEL, SyntheticStudy, add_marks
from HiResMedSynthLib.export.segmentation import CATEGORY, NODULE, STONE, tracking_id

if TYPE_CHECKING:
    from highdicom.sr import Comprehensive3DSR, ComprehensiveSR, FindingSite, Measurement
    from pydicom import Dataset

# whose diameter is told: (code value, meaning)
BALL, DISC = ("equal-volume", "Sphere of the volume of the mask"), ("equal-area", "Circle of the area of the mask")
SITES = {"lung-ct": "Lung", "cxr": "Lung", "kub": "UrinarySystem"}  # SNOMED CT, by pydicom's names; of MR: unknown


@dataclass(frozen=True, kw_only=True)
class LesionMeasures:
    """A lesion measured in the composed pixels, over its mask (alpha >= 0.5).

    Args:
        number: of the lesion.
        volume_mm3: None in a single picture, which shows an area.
        area_mm2: None in a stack.
        diameter_mm: of the sphere of equal volume, or of the circle of equal area.
        mean: HU or stored value.
    """

    number: int
    volume_mm3: float | None
    area_mm2: float | None
    diameter_mm: float
    mean: float


def measured(composition: Composition) -> tuple[LesionMeasures, ...]:
    """Measures of every lesion that has a voxel of its own in the instance mask, in their order."""
    image, found = composition.image, []
    slice_mm, row_mm, column_mm = image.spacing_mm
    for lesion in composition.lesions:
        own = composition.instance_mask[lesion.region] == lesion.number
        count = int(np.count_nonzero(own))
        if count == 0:
            continue
        area, flat = count * row_mm * column_mm, image.slices == 1
        volume = area * slice_mm
        found.append(
            LesionMeasures(
                number=lesion.number,
                volume_mm3=None if flat else volume,
                area_mm2=area if flat else None,
                diameter_mm=math.sqrt(4 * area / math.pi) if flat else (6 * volume / math.pi) ** (1 / 3),
                mean=float(image.pixels[lesion.region][own].mean(dtype=np.float64)),
            )
        )
    return tuple(found)


def measurement_report(
    composition: Composition, headers: Sequence[Dataset], seg: Dataset, study: SyntheticStudy
) -> Comprehensive3DSR | ComprehensiveSR:
    """The report that refers to the segments of `seg`: Comprehensive 3D SR, or Comprehensive SR for a film.

    Args:
        composition: image and lesions.
        headers: data sets of the written slices, without pixels.
        seg: the written segmentation of the same export.
        study: shared by all objects of the export.
    """
    from highdicom import sr
    from pydicom.sr.codedict import codes

    identity = study.identity
    device = sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=identity.uid("device"), name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL
        ),
    )
    modality = composition.image.modality
    body = codes.LN
    procedure = {"CT": body.CTUnspecifiedBodyRegion, "MR": body.MRIUnspecifiedBodyRegion}
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=device),
        procedure_reported=procedure.get(modality, body.XRUnspecifiedBodyRegion),
        imaging_measurements=list(_groups(composition, headers, seg, study)),
        title=codes.DCM.ImagingMeasurementReport,
    )
    in_space = "ImageOrientationPatient" in headers[0]
    report = (sr.Comprehensive3DSR if in_space else sr.ComprehensiveSR)(
        evidence=[*headers, seg],
        content=content,
        series_instance_uid=identity.uid("measurement series"),
        series_number=101,
        sop_instance_uid=identity.uid("measurements"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        series_description="SYNTHETIC lesions, measurements",
        is_complete=True,
    )
    report.InstanceCreationDate = report.ContentDate = report.SeriesDate = identity.date
    report.InstanceCreationTime = report.ContentTime = report.SeriesTime = identity.time
    report.StudyDescription = study.study_description
    add_marks(report, study)
    return report


def _groups(composition: Composition, headers: Sequence[Dataset], seg: Dataset, study: SyntheticStudy) -> Iterator[Any]:
    """A measurement group a lesion: volumetric (TID 1411) in a stack, planar (TID 1410) in a single picture."""
    from highdicom import sr
    from pydicom.sr.coding import Code

    segments = {lesion.number: number for number, lesion in enumerate(composition.lesions, start=1)}
    by_number = {lesion.number: lesion for lesion in composition.lesions}
    for values in measured(composition):
        segment = segments[values.number]
        value, meaning = STONE if by_number[values.number].type == "stone" else NODULE
        told = {
            "tracking_identifier": sr.TrackingIdentifier(
                uid=study.identity.uid("lesion", segment), identifier=tracking_id(segment)
            ),
            "finding_category": Code(CATEGORY[0], "SCT", CATEGORY[1]),
            "finding_type": Code(value, "SCT", meaning),
            "finding_sites": _sites(composition, by_number[values.number]),
            "algorithm_id": sr.AlgorithmIdentification(name=MODEL, version=__version__),
            "measurements": _measurements(values, composition.image.modality, composition.image.units),
        }
        if values.volume_mm3 is not None:
            # not `from_segmentation`: it looks for a per-frame item that a SEG of one segment keeps shared
            yield sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=sr.ReferencedSegment(
                    seg.SOPClassUID,
                    seg.SOPInstanceUID,
                    segment,
                    source_series=sr.SourceSeriesForSegmentation(headers[0].SeriesInstanceUID),
                ),
                **told,
            )
        else:
            source = sr.SourceImageForSegmentation(headers[0].SOPClassUID, headers[0].SOPInstanceUID)
            frame = _frame_of(seg, segment)
            reference = sr.ReferencedSegmentationFrame(seg.SOPClassUID, seg.SOPInstanceUID, frame or 1, segment, source)
            shown = reference[0].ReferencedSOPSequence[0]  # one of the two, never both (PS3.3 C.18.4, Table 10-3)
            del shown["ReferencedSegmentNumber" if frame else "ReferencedFrameNumber"]
            yield sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=reference, **told)


def _measurements(values: LesionMeasures, modality: str, units: str) -> list[Measurement]:
    from highdicom.sr import Measurement
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    value, meaning = DISC if values.volume_mm3 is None else BALL
    method = Code(value, "99HIRESMEDSYNTH", meaning)
    diameter = _rounded(values.diameter_mm)
    found = [Measurement(name=codes.SCT.Diameter, value=diameter, unit=codes.UCUM.Millimeter, method=method)]
    if values.volume_mm3 is not None:
        found.append(
            Measurement(name=codes.SCT.Volume, value=_rounded(values.volume_mm3), unit=codes.UCUM.CubicMillimeter)
        )
    if values.area_mm2 is not None:
        found.append(
            Measurement(name=codes.SCT.Area, value=_rounded(values.area_mm2), unit=codes.UCUM.SquareMillimeter)
        )
    name, unit = Code("stored-value", "99HIRESMEDSYNTH", "Stored value"), codes.UCUM.NoUnits
    if units == "HU":
        name, unit = codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit
    elif modality == "MR":
        name = codes.DCM.MRSignalIntensity
    found.append(Measurement(name=name, value=_rounded(values.mean), unit=unit, derivation=codes.SCT.Mean))
    return found


def _sites(composition: Composition, lesion: PlacedLesion) -> list[FindingSite]:
    """The organ where it is known, with the side where the lesion was asked for on one.

    Of a mirrored film no side: zones are wrong there.
    """
    from highdicom.sr import FindingSite
    from pydicom.sr.codedict import codes

    domain = composition.case.background.domain
    if domain not in SITES:
        return []
    hangs = hanging(composition.image.facts.patient_orientation)
    mirrored = domain != "lung-ct" and bool(hangs) and "R" in hangs[0]
    side = "" if mirrored else (lesion.request.zone or "").split("-")[0]
    laterality = {"left": codes.SCT.Left, "right": codes.SCT.Right}.get(side)
    return [FindingSite(anatomic_location=getattr(codes.SCT, SITES[domain]), laterality=laterality)]


def _frame_of(seg: Dataset, segment: int) -> int | None:
    """Number of the SEG frame that shows one segment of a single picture, from 1; None in a label map's one frame."""
    if seg.SegmentationType == "LABELMAP":
        return None
    shared = seg.SharedFunctionalGroupsSequence[0]  # of a SEG of one segment
    for number, group in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        item = group.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        if item[0].ReferencedSegmentNumber == segment:
            return number
    return None


def _rounded(value: float) -> float:
    """Six significant digits: a DS holds 16 characters, and no measurement is finer."""
    return float(f"{value:.6g}")
