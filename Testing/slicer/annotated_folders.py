"""Folders of annotations for the panel's tests, written and told by the backend's Python: WRITE|TELL FOLDER."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from HiResMedSynthLib.annotations import AnnotatedImage, Mark, read_annotations, write_annotations
from HiResMedSynthLib.image import MedicalImage, Window

TOLD = ("modality", "photometric", "bits_stored", "spacing_source", "pixel_spacing_mm")


def images() -> list[AnnotatedImage]:
    """An inverted film of unknown spacing without a mark, the same turned by 20 degrees with a box, one of segments."""
    film = MedicalImage(
        pixels=np.random.default_rng(0).integers(0, 4000, (60, 50)).astype(np.uint16),
        modality="DX", photometric="MONOCHROME1", bits_stored=12, window=Window(center=2000, width=3000),
    )  # fmt: skip
    turn = np.array([[np.cos(0.35), np.sin(0.35), 0], [-np.sin(0.35), np.cos(0.35), 0]])
    turned = replace(
        film, photometric="MONOCHROME2", directions_lps=turn, pixel_spacing_mm=(0.5, 0.5), spacing_source="header"
    )
    box = Mark(class_name="mass", shape="box", place=(0, 25, 25), corner=(0, 20, 20), mask=np.ones((1, 10, 8), bool))
    segments = tuple(
        Mark(class_name=name, shape="segment", place=(0, at, at), corner=(0, at, at), mask=np.ones((1, 4, 5), bool))
        for name, at in (("cyst", 5), ("nodule", 20), ("scar", 35))
    )
    return [
        AnnotatedImage(image=film),
        AnnotatedImage(image=turned, marks=(box,)),
        AnnotatedImage(image=film, marks=segments),
    ]


def told(folder: Path) -> list[dict[str, Any]]:
    """What a folder holds, in plain values."""
    return [
        {
            **{name: getattr(one.image, name) for name in TOLD},
            "window": None if one.image.window is None else [one.image.window.center, one.image.window.width],
            "sum": int(one.image.pixels.astype(np.int64).sum()),
            "marks": [
                [mark.class_name, mark.shape, *(mark.corner or ()), *([] if mark.mask is None else mark.mask.shape)]
                for mark in one.marks
            ],
        }
        for one in read_annotations(folder)
    ]


if __name__ == "__main__":
    place = Path(sys.argv[2])
    if sys.argv[1] == "write":
        write_annotations(images(), place)
    sys.stdout.write(json.dumps(told(place)))
