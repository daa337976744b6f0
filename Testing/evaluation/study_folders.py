"""Small folders of pictures and of CT slices with marked lesions, and studies made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.annotations import AnnotatedImage, Mark, write_annotations
from HiResMedSynthLib.evaluation.reader_study import Key, Study, image_path
from HiResMedSynthLib.evaluation.study_make import StudyPlan, new_study
from HiResMedSynthLib.image import MedicalImage, Window

SIDE = 48


def texture(seed: int, side: int = SIDE) -> NDArray[np.float64]:
    """`[side, side]` 0..1, like no other seed's."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.5)
    return np.asarray((field - field.min()) / (field.max() - field.min()))


def picture_folder(folder: Path, count: int, *, first: int = 0, bits: int = 8, side: int = SIDE) -> Path:
    """PNG pictures with the seeds from `first` on."""
    folder.mkdir(parents=True)
    kind = np.uint8 if bits == 8 else np.uint16
    for k in range(first, first + count):
        cv2.imwrite(str(folder / f"p{k:03d}.png"), np.round(texture(k, side) * (2**bits - 1)).astype(kind))
    return folder


def ct_slice(seed: int, place: tuple[int, int], radius: int, **changes: Any) -> AnnotatedImage:
    """A CT slice with one round lesion of 40 HU marked."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ball = (rows - place[0]) ** 2 + (columns - place[1]) ** 2 <= radius**2
    pixels = np.where(ball, 40, -900 + 100 * texture(seed)).astype(np.int16)
    fields: dict[str, Any] = {
        "modality": "CT", "units": "HU", "pixel_spacing_mm": (0.7, 0.7), "spacing_source": "header",
        "window": Window(center=-600, width=1500), **changes,
    }  # fmt: skip
    mark = Mark(class_name="nodule", shape="segment", place=(0, *place), corner=(0, 0, 0), mask=ball[np.newaxis])
    return AnnotatedImage(image=MedicalImage(pixels=pixels, **fields), marks=(mark,))


def labelled_folder(folder: Path, count: int, *, first: int = 0, radius: int = 3, **changes: Any) -> Path:
    """A labelled folder of CT slices, each of its own patient."""
    rng = np.random.default_rng(first)
    places = rng.integers(10, SIDE - 10, (count, 2)).tolist()
    write_annotations([ct_slice(first + k, (r, c), radius, **changes) for k, (r, c) in enumerate(places)], folder)
    names = [f"images/{path.name}" for path in sorted((folder / "images").iterdir())]
    rows = "".join(f"{name},patient{first + k}\n" for k, name in enumerate(names))
    (folder / "patients.csv").write_text("file,patient\n" + rows, encoding="utf-8")
    return folder


def small_study(place: Path, **fields: Any) -> tuple[Study, Key]:
    """A study of real pictures 0.. and synthetic ones 100.., readers Ann and Ben, in `place`/study."""
    plan = StudyPlan(**{"task": "yes-no", "count": 8, "readers": ("Ann", "Ben"), "seed": 5, **fields})
    if not (place / "real").exists():
        picture_folder(place / "real", 24)
        picture_folder(place / "made", 8, first=100)
    return new_study(place / "real", place / "made", place / "study", plan, progress=lambda *_: None)


def pixels_of(study: Study, token: str) -> NDArray[np.uint16]:
    """The picture as a page gets it."""
    import gzip

    content = gzip.decompress(image_path(study.folder, token).read_bytes())
    return np.frombuffer(content, "<u2").reshape(study.design.rows, study.design.columns)
