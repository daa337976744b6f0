"""The lesions as a DICOM Segmentation (PS3.3 A.51), one segment a lesion, by highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import __version__
from HiResMedSynthLib.compose import Composition
from HiResMedSynthLib.export.dicom_series import ENCODERS, Compression
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.export.patient import MANUFACTURER, MODEL, SyntheticStudy, add_marks

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from pydicom import Dataset

SegKind = Literal["binary", "labelmap"]
# SNOMED CT codes of PS3.16: what a lesion of each type is called
NODULE, STONE = ("27925004", "Nodule"), ("56381008", "Calculus")
CATEGORY = ("49755003", "Morphologically Altered Structure")


def tracking_id(number: int) -> str:
    """The name of a lesion that segmentation and measurements share."""
    return f"synthetic lesion {number}"


def segmentation(
    composition: Composition,
    headers: Sequence[Dataset],
    study: SyntheticStudy,
    *,
    kind: SegKind = "binary",
    compress: Compression | None = None,
) -> Segmentation:
    """The SEG object that refers to the written series.

    Args:
        composition: image and lesions.
        headers: data sets of the written slices, without pixels; InstanceNumber is the slice index plus one.
        study: shared by all objects of the export.
        kind: BINARY, or LABELMAP (PS3.3 A.51 of 2024).
        compress: lossless compression; None: none.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = AlgorithmIdentificationSequence(
        name=MODEL, version=__version__, family=codes.cid7162.ArtificialIntelligence
    )
    descriptions = []
    for number, lesion in enumerate(composition.lesions, start=1):
        value, meaning = STONE if lesion.type == "stone" else NODULE
        descriptions.append(
            SegmentDescription(
                segment_number=number,
                segment_label=f"{number}: {lesion.type}, {lesion.diameter_mm:.1f} mm",
                segmented_property_category=Code(CATEGORY[0], "SCT", CATEGORY[1]),
                segmented_property_type=Code(value, "SCT", meaning),
                algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
                algorithm_identification=algorithm,
                tracking_uid=study.identity.uid("lesion", number),
                tracking_id=tracking_id(number),
            )
        )
    slices = [int(header.InstanceNumber) - 1 for header in headers]
    numbers = [lesion.number for lesion in composition.lesions]
    mask = composition.instance_mask[slices]
    segment_of = np.zeros(max(numbers) + 1, dtype=np.uint8 if len(numbers) < 256 else np.uint16)
    segment_of[numbers] = np.arange(1, len(numbers) + 1)
    result = new_segmentation(
        headers,
        segment_of[mask],
        descriptions,
        identity=study.identity,
        kind=kind,
        compress=compress,
        series_description="SYNTHETIC lesions, masks",
        content_label="SYNTHETIC",
        content_description="Masks of synthetic lesions (alpha >= 0.5)",
    )
    add_marks(result, study)
    return result


def new_segmentation(
    headers: Sequence[Dataset],
    frames: NDArray[Any],
    descriptions: Sequence[Any],
    *,
    identity: OutputIdentity,
    kind: SegKind = "binary",
    compress: Compression | None = None,
    series_description: str,
    content_label: str,
    content_description: str,
) -> Segmentation:
    """A SEG over some slices, written by us.

    Args:
        headers: data sets of the slices, without pixels.
        frames: `[slice, row, column]` segment numbers, or `[slice, row, column, segment]` where segments overlap.
        descriptions: highdicom SegmentDescriptions.
        identity: where its UIDs and dates come from.
        kind: BINARY or LABELMAP.
        compress: of the frames of a label map; RLE and JPEG-LS can't hold the single bits of a BINARY one (PS3.5
            8.2.2, 8.2.3), so that is deflated as a whole.
        series_description, content_label, content_description: what readers see.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

    result = Segmentation(
        source_images=list(headers),
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues(kind.upper()),
        segment_descriptions=list(descriptions),
        series_instance_uid=identity.uid("segmentation series"),
        series_number=100,
        sop_instance_uid=identity.uid("segmentation"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number="1",
        transfer_syntax_uid=ENCODERS[compress][0] if compress and kind == "labelmap" else ExplicitVRLittleEndian,
        omit_empty_frames=True,
        series_description=series_description,
        content_label=content_label,
        content_description=content_description,
    )
    if compress and kind == "binary":
        result.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    # highdicom takes the time of the call, and draws this UID
    result.InstanceCreationDate = result.ContentDate = identity.date
    result.InstanceCreationTime = result.ContentTime = identity.time
    dimensions = identity.uid("segmentation dimensions")
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions
    shared = result.SharedFunctionalGroupsSequence[0]
    if "ImageOrientationPatient" not in headers[0]:  # a film has no plane in the patient (PS3.3 C.7.6.1.1.1)
        result.PatientOrientation = headers[0].PatientOrientation
        # optional beside a derivation image (PS3.3 Table A.51-2); without its slice thickness highdicom reads nothing
        shared.pop("PixelMeasuresSequence", None)
    elif "PixelMeasuresSequence" in shared and not shared.PixelMeasuresSequence[0].get("SliceThickness"):
        shared.PixelMeasuresSequence[0].SliceThickness = f"{_gap_mm(headers):.10g}"
    return result


def _gap_mm(headers: Sequence[Dataset]) -> float:
    """Distance of the first two slices; 1 mm where there is one, as for the image itself."""
    places = np.array([header.ImagePositionPatient for header in headers[:2]], dtype=np.float64)
    return float(np.linalg.norm(places[-1] - places[0])) or 1.0
