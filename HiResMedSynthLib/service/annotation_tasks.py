"""The jobs save_annotations and load_annotations: real lesions marked in real images, to and from a zipped folder."""

from __future__ import annotations

import dataclasses
import io
import secrets
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from HiResMedSynthLib.annotations import (
    COCO_FILE,
    AnnotatedImage,
    Index,
    Mark,
    Shape,
    read_annotations,
    write_annotations,
)
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.export.dicom_series import series_datasets
from HiResMedSynthLib.export.image_modules import SECTIONAL
from HiResMedSynthLib.export.patient import SyntheticStudy
from HiResMedSynthLib.export.segmentation import CATEGORY, NODULE, STONE, new_segmentation
from HiResMedSynthLib.export.sop_class import object_kind
from HiResMedSynthLib.image import HeaderFacts, MedicalImage
from HiResMedSynthLib.service.client import BackendError, plain_header, unpack_folder
from HiResMedSynthLib.service.job_folder import job_folder
from HiResMedSynthLib.service.jobs import Result, Step
from HiResMedSynthLib.service.messages import arrays_result, header_of, parameters_of, zip_result
from HiResMedSynthLib.service.protocol import LARGEST_ARRAYS, ProtocolError, unpack_arrays
from HiResMedSynthLib.service.store import Store

if TYPE_CHECKING:
    from highdicom.seg import Segmentation

    from HiResMedSynthLib.service.tasks import Work

SEGMENTATIONS = "segmentations"
LESION = ("52988006", "Lesion")  # SNOMED CT, PS3.16; for classes that are neither nodule nor stone
STRICT = ConfigDict(extra="forbid")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentMark:
    """A mark as it travels: a box by corner and size, a segment by corner and the name of the blob with its mask.

    The blob is npz with one bool array `mask`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    class_name: str
    shape: Shape
    place: Index
    diameter_mm: float | None = None
    corner: Index | None = None
    size: Index | None = None
    mask: str | None = None
    comment: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentImage:
    """An image that was sent before, by its name, with its marks."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    image: str
    marks: tuple[SentMark, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveParameters:
    """Parameters of save_annotations; `seg` adds a DICOM SEG for each image that holds a mark."""

    images: tuple[SentImage, ...]
    seg: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadParameters:
    """Parameters of load_annotations: the name of the blob with the zipped folder."""

    folder: str


def save_annotations(work: Work, step: Step) -> Result:
    """The annotation folder as a zip."""
    wanted = parameters_of(SaveParameters, work.parameters)
    images = []
    for number, sent in enumerate(wanted.images, start=1):
        image = work.store.get(f"image {sent.image}")
        if not isinstance(image, MedicalImage):
            raise SettingsError(
                f"the backend doesn't hold image {number}: together they may be more than it can",
                remedy="Send fewer at a time, or start it with a larger --memory-mib.",
            )
        images.append(AnnotatedImage(image=image, marks=tuple(_mark(mark, image, work.store) for mark in sent.marks)))
    with job_folder() as place:
        folder = place / "annotations"
        step.progress(0, len(images) + 1, "writing images, masks and boxes")
        write_annotations(images, folder)
        for number, one in enumerate(images if wanted.seg else (), start=1):
            step.progress(number, len(images) + 1, f"writing the DICOM SEG of image {number}")
            if one.marks and one.image.pixel_spacing_mm is None and _has_plane(one.image):
                step.note(f"image {number} has no DICOM SEG: its pixel spacing is unknown")
            elif one.marks:
                (folder / SEGMENTATIONS).mkdir(exist_ok=True)
                written = folder / SEGMENTATIONS / f"IM{number:04d}.dcm"
                annotation_segmentation(one).save_as(written, enforce_file_format=True)
        return zip_result(folder)


def _mark(sent: SentMark, image: MedicalImage, store: Store) -> Mark:
    fields = {f.name: getattr(sent, f.name) for f in dataclasses.fields(Mark)}
    fields["mask"] = None
    if sent.shape == "box" and sent.size is not None:
        if not all(0 < n <= end for n, end in zip(sent.size, image.shape, strict=True)):
            raise SettingsError(f"a box of {sent.size} voxels doesn't fit its image", remedy="Draw it anew.")
        fields["mask"] = np.ones(sent.size, dtype=bool)
    elif sent.mask is not None:
        blob = store.get(f"blob {sent.mask}")
        if not isinstance(blob, bytes):
            raise SettingsError("the backend doesn't hold the mask of a segment", remedy="Send it again.")
        try:
            fields["mask"] = unpack_arrays(blob)[0].get("mask")
        except ProtocolError as error:
            raise SettingsError(f"the mask of a segment is damaged: {error}", remedy="Send it again.") from error
    return Mark(**fields)


def load_annotations(work: Work, step: Step) -> Result:
    """Pixels ("1.pixels") and masks ("1.2.mask") by image and mark, with `images` (headers and marks) as document."""
    wanted = parameters_of(LoadParameters, work.parameters)
    content = work.store.get(f"blob {wanted.folder}")
    if not isinstance(content, bytes):
        raise SettingsError("the backend doesn't hold this folder", remedy="Send it again.")
    step.progress(0, 2, "reading the annotations")
    with job_folder() as place:
        folder = place / "annotations"
        _unpack(content, folder)
        inside = list(folder.iterdir())
        if len(inside) == 1 and inside[0].is_dir():  # the folder itself was packed, not what it holds
            folder = inside[0]
        if not any(folder.glob("*.json")):
            raise ReadError(
                f"this folder holds no {COCO_FILE}", remedy="Choose a folder of images with their COCO file."
            )
        images = read_annotations(folder)
    step.progress(1, 2, "sending the images")
    arrays: dict[str, NDArray[Any]] = {}
    told = []
    for number, one in enumerate(images, start=1):
        arrays[f"{number}.pixels"] = one.image.pixels
        marks = []
        for mark_number, mark in enumerate(one.marks, start=1):
            marks.append({f.name: getattr(mark, f.name) for f in dataclasses.fields(Mark) if f.name != "mask"})
            if mark.mask is not None:
                arrays[f"{number}.{mark_number}.mask"] = mark.mask
        told.append({"header": plain_header(header_of(one.image)), "marks": marks})
    if sum(array.nbytes for array in arrays.values()) > LARGEST_ARRAYS:
        raise ReadError("the images are too large to be sent at once", remedy="Split the folder.")
    return arrays_result(arrays, {"images": told})


def _unpack(content: bytes, folder: Path) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= LARGEST_ARRAYS:
            unpack_folder(io.BytesIO(content), folder)
            return
    except (BackendError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _refused() from error
    raise _refused()


def _refused() -> ReadError:
    return ReadError(
        "the zip can't be unpacked: it is damaged, too large, or a file in it leads out of its folder",
        remedy="Pack the annotation folder anew.",
    )


def annotation_segmentation(annotated: AnnotatedImage) -> Segmentation:
    """A DICOM SEG with one segment a mark: real lesions, so nothing in it says synthetic; all ids and dates are new.

    It refers to image objects that stay where they are, under ids of its own: its place is told by its geometry.
    """
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from pydicom.sr.coding import Code

    kept = HeaderFacts(
        sop_class_uid=annotated.image.facts.sop_class_uid,
        imager_pixel_spacing_mm=annotated.image.facts.imager_pixel_spacing_mm,
    )
    image = dataclasses.replace(annotated.image, facts=kept)
    number = secrets.token_hex(4).upper()
    study = SyntheticStudy(
        patient_id=f"ANNOTATED-{number}",
        patient_name=f"ANNOTATED^{number}",
        study_description="Annotated image, identity removed",
    )
    labels = annotated.label_map()
    held = sorted({
        corner[0] + k for corner, mask in map(annotated.patch, annotated.marks) for k in range(mask.shape[0])
    })  # fmt: skip
    headers = []
    for data in series_datasets(
        image, object_kind(image), study, description="", derivation="", series_number=1, slices=held
    ):
        del data.PixelData
        data.StudyID = "1"
        headers.append(data)
    descriptions = []
    for index, mark in enumerate(annotated.marks, start=1):
        word = mark.class_name.lower()
        value, meaning = STONE if "stone" in word else NODULE if "nodule" in word else LESION
        descriptions.append(
            SegmentDescription(
                segment_number=index,
                segment_label=f"{index}: {mark.class_name}"[:64].strip(),
                segmented_property_category=Code(CATEGORY[0], "SCT", CATEGORY[1]),
                segmented_property_type=Code(value, "SCT", meaning),
                algorithm_type=SegmentAlgorithmTypeValues.MANUAL,
                tracking_uid=study.identity.uid("mark", index),
                tracking_id=f"lesion {index}",
            )
        )
    result = new_segmentation(
        headers,
        _frames(annotated, labels, held),
        descriptions,
        identity=study.identity,
        series_description="Marked lesions",
        content_label="ANNOTATION",
        content_description="Lesions marked by a person",
    )
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = "Header built anew; nothing of the source's header is kept"
    return result


def _frames(annotated: AnnotatedImage, labels: NDArray[np.uint16], held: list[int]) -> NDArray[Any]:
    """`[slice, row, column]` segment numbers, or `[slice, row, column, segment]` where marks overlap."""
    patches = [annotated.patch(mark) for mark in annotated.marks]
    if sum(int(mask.sum()) for _, mask in patches) == np.count_nonzero(labels):
        return labels[held].astype(np.uint8 if len(patches) < 256 else np.uint16)
    frames = np.zeros((len(held), *labels.shape[1:], len(patches)), dtype=np.uint8)
    for number, ((first, row, column), mask) in enumerate(patches):
        slices, rows, columns = mask.shape
        start = held.index(first)
        frames[start : start + slices, row : row + rows, column : column + columns, number] = mask
    return frames


def _has_plane(image: MedicalImage) -> bool:
    """Whether its DICOM objects would stand in the patient, which needs a spacing."""
    return image.slices > 1 or image.modality in SECTIONAL
