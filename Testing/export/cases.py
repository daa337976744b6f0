"""Small compositions with a lesion at a known place, for the tests of what is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from HiResMedSynthLib.case import BackgroundReference, Case, CaseSettings, LesionRequest, PlacedLesion
from HiResMedSynthLib.compose import Composition, compose
from HiResMedSynthLib.export.sop_class import CT, DX_PRESENTATION, MR
from HiResMedSynthLib.image import HeaderFacts, MedicalImage, Window

CORNER = (2, 5, 9)  # of the lesion's patch in `ct_image`
SIZE = (3, 4, 6)


def ct_image(**changes: Any) -> MedicalImage:
    """7 slices of 24 x 32, HU, as read from a CT series."""
    rng = np.random.default_rng(4)
    image = MedicalImage(
        pixels=rng.integers(-1000, 400, (7, 24, 32)).astype(np.int16),
        modality="CT",
        units="HU",
        pixel_spacing_mm=(0.7, 0.7),
        spacing_source="header",
        positions_lps_mm=np.array([[-50.0, -40.0, 10.0 + 2.5 * k] for k in range(7)]),
        slice_thickness_mm=2.5,
        rescale=(1.0, -1024.0),
        bits_stored=12,
        window=Window(center=-600, width=1500),
        facts=HeaderFacts(sop_class_uid=CT, patient_position="HFS", kvp=120.0),
    )
    return replace(image, **changes)


def film_image(**changes: Any) -> MedicalImage:
    """A radiograph of 40 x 48, 12 bits, as read from a DX file."""
    rng = np.random.default_rng(5)
    image = MedicalImage(
        pixels=rng.integers(0, 4096, (40, 48)).astype(np.uint16),
        modality="DX",
        pixel_spacing_mm=(0.2, 0.3),
        spacing_source="header",
        bits_stored=12,
        facts=HeaderFacts(
            sop_class_uid=DX_PRESENTATION,
            imager_pixel_spacing_mm=(0.2, 0.3),
            view_position="PA",
            burned_in_annotation="NO",
        ),
    )
    return replace(image, **changes)


def mr_image(**changes: Any) -> MedicalImage:
    """7 slices of 24 x 32, 12 bits, as read from an MR series."""
    image = ct_image(
        pixels=np.random.default_rng(6).integers(0, 4096, (7, 24, 32)).astype(np.uint16),
        modality="MR",
        units="stored",
        rescale=(1.0, 0.0),
        facts=HeaderFacts(
            sop_class_uid=MR,
            patient_position="HFS",
            scanning_sequence=("GR", "IR"),
            sequence_variant=("SP", "MP"),
            mr_acquisition_type="3D",
            repetition_time_ms=8.2,
            echo_time_ms=3.4,
            inversion_time_ms=450.0,
            echo_train_length=1.0,
        ),
    )
    return replace(image, **changes)


def composition_in(image: MedicalImage, *, lesions: int = 1) -> Composition:
    """One or two box-shaped lesions; the first covers `SIZE` voxels from `CORNER` (slice 0 in a single picture)."""
    placed = []
    for number in range(1, lesions + 1):
        slices = 1 if image.slices == 1 else SIZE[0]
        low = (0 if image.slices == 1 else CORNER[0] - 1, CORNER[1] - 1 + 8 * (number - 1), CORNER[2] - 1)
        depth = slices if image.slices == 1 else slices + 2
        alpha = np.zeros((depth, SIZE[1] + 2, SIZE[2] + 2), np.uint16)
        inner = slice(None) if image.slices == 1 else slice(1, -1)
        alpha[inner, 1:-1, 1:-1] = 65535
        alpha[:, 0, 3] = 9000  # a soft rim that belongs to the footprint but not to the mask
        placed.append(
            PlacedLesion(
                number=number,
                request=LesionRequest(seed=number),
                bank_entry="solid-09mm-a",
                origin="real cut-out",
                type="solid",
                center=(float(low[0] + 1), 6.5, 11.5),
                center_lps_mm=(0.0, 0.0, 0.0),
                diameter_mm=5.0,
                contrast=100.0,
                cnr=5.0,
                mode="blend",
                corner=low,
                intensity=np.full(alpha.shape, 77, np.int16),
                alpha=alpha,
            )
        )
    settings = CaseSettings(requests=tuple(lesion.request for lesion in placed), domain="lung-ct")
    reference = BackgroundReference.of(image, domain="lung-ct" if image.units == "HU" else "cxr")
    return compose(image, Case(background=reference, settings=settings, seed=1, lesions=tuple(placed)))
