"""The lesions as a DICOM Segmentation (PS3.3 A.51), one segment a lesion, by highdicom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import __version__
from HiResMedSynthLib.compose import Composition
from HiResMedSynthLib.export.patient import MANUFACTURER, MODEL, SyntheticStudy, add_marks

if TYPE_CHECKING:
    from highdicom.seg import Segmentation
    from pydicom import Dataset

# SNOMED CT codes of PS3.16: what a lesion of each type is called
NODULE, STONE = ("27925004", "Nodule"), ("56381008", "Calculus")
CATEGORY = ("49755003", "Morphologically Altered Structure")


def segmentation(composition: Composition, headers: Sequence[Dataset], study: SyntheticStudy) -> Segmentation:
    """The SEG object that refers to the written series.

    Args:
        composition: image and lesions.
        headers: data sets of the written slices, without pixels; InstanceNumber is the slice index plus one.
        study: shared by all objects of the export.
    """
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code
    from pydicom.uid import generate_uid

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
                tracking_uid=generate_uid(),
                tracking_id=f"synthetic lesion {number}",
            )
        )
    slices = [int(header.InstanceNumber) - 1 for header in headers]
    numbers = [lesion.number for lesion in composition.lesions]
    mask = composition.instance_mask[slices]
    segment_of = np.zeros(max(numbers) + 1, dtype=np.uint8 if len(numbers) < 256 else np.uint16)
    segment_of[numbers] = np.arange(1, len(numbers) + 1)
    result = binary_segmentation(
        headers,
        segment_of[mask],
        descriptions,
        series_description="SYNTHETIC lesions, masks",
        content_label="SYNTHETIC",
        content_description="Masks of synthetic lesions (alpha >= 0.5)",
    )
    add_marks(result, study)
    return result


def binary_segmentation(
    headers: Sequence[Dataset],
    frames: NDArray[Any],
    descriptions: Sequence[Any],
    *,
    series_description: str,
    content_label: str,
    content_description: str,
) -> Segmentation:
    """A BINARY SEG over some slices, written by us, with new ids.

    Args:
        headers: data sets of the slices, without pixels.
        frames: `[slice, row, column]` segment numbers, or `[slice, row, column, segment]` where segments overlap.
        descriptions: highdicom SegmentDescriptions.
        series_description, content_label, content_description: what readers see.
    """
    from highdicom.seg import Segmentation, SegmentationTypeValues
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    result = Segmentation(
        source_images=list(headers),
        pixel_array=frames,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=list(descriptions),
        series_instance_uid=generate_uid(),
        series_number=100,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        omit_empty_frames=True,
        series_description=series_description,
        content_label=content_label,
        content_description=content_description,
    )
    if "ImageOrientationPatient" not in headers[0]:  # a film has no plane in the patient (PS3.3 C.7.6.1.1.1)
        result.PatientOrientation = headers[0].PatientOrientation
    return result
