"""The images of a folder, whatever its layout: exported cases, labelled folders, DICOM series, films, pictures.

A source is one file or series of one patient; it is read when it is called for. Whose it is comes from PatientID, from
patients.csv, of a case from its data set's manifest, patients.csv, or the background that it names; it is kept as a
hash and never written. Else it is its own.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.annotated_image import AnnotatedImage
from HiResMedSynthLib.annotations import COCO_FILE, open_annotations
from HiResMedSynthLib.annotations_files import file_names, is_image_name
from HiResMedSynthLib.annotations_patients import Told, read_patients
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.read_bounds import refuse_deflated_bomb
from HiResMedSynthLib.read_dicom import looks_like_dicom
from HiResMedSynthLib.read_quietly import quietly

CASE_FILE, CASE_SERIES, CASE_BACKGROUND, CASE_MASK = "case.json", "dicom", "dicom_background", "instance_mask.nii.gz"
MANIFEST = "manifest.csv"  # of a data set
ABOVE = 3  # folders above a case, one of which may be its data set
OUR_PICTURES = ("sheet.png", "preview.png")
LABELLED = ("classes.json", "classes.txt", "dataset.json", "data.yaml", COCO_FILE)
NO_PICTURE = ("SEG", "SR", "KO", "PR", "RTSTRUCT", "RTPLAN", "RTDOSE", "REG")  # modalities of objects without pixels
STACKED = ("CT", "MR", "PT", "NM")  # files of one series are slices of one image; films of one are images each
NOBODY = ("", "anonymous", "anon", "anonymized", "anonymised", "unknown", "none", "0")  # PatientID that names no one
LESION_WORDS = ("nodule", "lesion", "mass", "tumour", "tumor", "stone", "calculus", "finding")
LARGEST_JSON = 64 * 2**20
MOST_NAMED = 4
MONAI_LABEL = "_label.nii.gz"  # of a data set's layout monai


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A source that was read.

    Args:
        image: a film, a slice or a stack.
        lesions: uint16 `[slice, row, column]`, number of the lesion from 1, 0 elsewhere; None where nobody marked any.
        background: the same image without lesions; None where there is none.
        described: whether a case.json or generated.json tells how it was made.
    """

    image: MedicalImage
    lesions: NDArray[np.uint16] | None = None
    background: MedicalImage | None = None
    described: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """One image of a folder.

    Args:
        name: relative to the folder.
        group: whose it is, a hash; images of one group are not independent.
        read: reads it; raises HiResMedSynthError.
        background_sha256: pixels that it was composed on, as its case.json says; "" where none does.
        paired: whether its own background lies beside it.
    """

    name: str
    group: str
    read: Callable[[], Loaded]
    background_sha256: str = ""
    paired: bool = False


def find_images(path: str | Path) -> tuple[Source, ...]:
    """The sources of a folder, or the one of a file, sorted by name; nothing but headers is read.

    The series of an exported case stands for the case: what tells its lesions and how it was made lies beside it.

    Raises:
        ReadError: nothing is there that is an image, or a list of a labelled folder is damaged.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise ReadError("there is no such file or folder", where=path, remedy="Check the path.")
    if path.is_file():
        return (Source(name=path.name, group=hidden(str(path)), read=lambda: Loaded(image=read_image(path))),)
    if path.name == CASE_SERIES and is_case(path.parent):
        path = path.parent
    names = file_names(path)
    folders = [PurePosixPath(name).parent for name in names if PurePosixPath(name).name == CASE_FILE]
    cases = [path / folder for folder in folders if is_case(path / folder)]
    if cases:
        return _cases(path, cases)
    files = {name: _header(path / name) for name in names if _may_be_picture(path, name)}
    labelled = any(name in LABELLED for name in names) or any(_is_coco(path, name) for name in names)
    if labelled or any(header.get("Modality") == "SEG" for header in files.values()):
        return _labelled(path)
    deeper = sorted({PurePosixPath(name).parent for name in names if PurePosixPath(name).name in LABELLED})
    if deeper:
        volumes = [folder for folder in deeper if folder.parts[0] == "nnunet"]
        if volumes and (path / MANIFEST).is_file():  # a data set: its layouts hold the same images
            held = _labelled(path / volumes[0])  # its patients are numbers, which others may have too
            return tuple(replace(one, group=hidden(f"{one.group} of {path}")) for one in held)
        raise ReadError(
            "labelled folders lie deeper in this one, and their labels must not be taken for images",
            where=path,
            remedy=f"Name one of them itself: {', '.join(str(path / folder) for folder in deeper[:MOST_NAMED])}.",
        )
    if any(name.endswith(MONAI_LABEL) for name in files):
        raise ReadError(
            f"label maps (*{MONAI_LABEL}) lie beside the images, and must not be taken for images",
            where=path,
            remedy="Name a folder of the images alone, or make the data set with the layout dicom or nnunet.",
        )
    found = _plain(path, files)
    if not found:
        raise ReadError(
            "there is no image in this folder",
            where=path,
            remedy="Name a folder of DICOM, NIfTI, NRRD, PNG, TIFF or JPEG files, or of exported cases.",
        )
    return found


def is_case(folder: Path) -> bool:
    """Whether a folder is an exported case."""
    return (folder / CASE_FILE).is_file() and (folder / CASE_SERIES).is_dir()


def hidden(text: str) -> str:
    """A short hash in place of an identity."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# -- exported cases ----------------------------------------------------------------------------------------------------
def _cases(root: Path, folders: Sequence[Path]) -> tuple[Source, ...]:
    names = [one.name if one == root else one.relative_to(root).as_posix() for one in folders]
    manifests: dict[Path, dict[str, str]] = {}
    table = read_patients(root, names) or {}
    found = []
    owners: dict[str, str] = {}  # of each background: the same one in two data sets is of one patient
    same: dict[str, str] = {}
    for name, folder in zip(names, folders, strict=True):
        background = _json(folder / CASE_FILE).get("background")
        told = str(background.get("pixel_sha256", "")) if isinstance(background, dict) else ""
        listed = table[name].patient if name in table else ""
        place = next((place for place in folder.parents[:ABOVE] if (place / MANIFEST).is_file()), None)
        if place is not None and place not in manifests:
            manifests[place] = _manifest_patients(place)
        known = "" if place is None else manifests[place].get(folder.name, "")
        group = known or listed or told or str(folder)
        if told:
            first, again = _end(same, owners.setdefault(told, group)), _end(same, group)
            same |= {again: first} if first != again else {}
        found.append(
            Source(
                name=name,
                group=group,
                read=partial(_read_case, folder),
                background_sha256=told,
                paired=(folder / CASE_BACKGROUND).is_dir(),
            )
        )
    return tuple(replace(one, group=hidden(_end(same, one.group))) for one in found)


def _end(same: Mapping[str, str], group: str) -> str:
    """The group that stands for it and all that are the same."""
    while group in same:
        group = same[group]
    return group


def _manifest_patients(place: Path) -> dict[str, str]:
    """Patient of each case by its folder's name, where it is of a data set: its slices are cases of one patient."""
    try:
        with (place / MANIFEST).open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        return {row["image"]: f"{row['patient_group']} of {place}" for row in rows}
    except (OSError, ValueError, KeyError, csv.Error):  # none, or a list of something else
        return {}


def _read_case(folder: Path) -> Loaded:
    image = read_image(folder / CASE_SERIES)
    background = read_image(folder / CASE_BACKGROUND) if (folder / CASE_BACKGROUND).is_dir() else None
    mask = read_image(folder / CASE_MASK).pixels if (folder / CASE_MASK).is_file() else None
    for what, held in (("mask", mask), ("background", None if background is None else background.pixels)):
        if held is not None and held.shape != image.shape:
            raise ReadError(
                f"the {what} has the size {held.shape}, its series {image.shape} (slices, rows, columns)",
                where=folder,
                remedy="Export the case anew.",
            )
    lesions = None if mask is None else mask.astype(np.uint16)
    return Loaded(image=image, lesions=lesions, background=background, described=True)


# -- labelled folders --------------------------------------------------------------------------------------------------
def _labelled(path: Path) -> tuple[Source, ...]:
    opened = open_annotations(path)
    table = read_patients(path, opened.names) or {}
    return tuple(
        Source(name=name, group=_patient(path, name, table), read=partial(_read_labelled, read))
        for name, read in zip(opened.names, opened.readers, strict=True)
    )


def _read_labelled(read: Callable[[], AnnotatedImage]) -> Loaded:
    from scipy.ndimage import label

    one = read()
    outlined = tuple(mark for mark in one.marks if mark.shape == "segment")
    if one.marks and not outlined and one.class_map is None:
        return Loaded(image=one.image)  # a box or point says where a lesion is, but not which pixels are
    lesions = replace(one, marks=outlined).label_map()
    if one.class_map is not None:
        wanted = [
            number for number, name in one.class_map.names.items() if any(word in name.lower() for word in LESION_WORDS)
        ]
        pieces, _ = label(np.isin(one.class_map.labels, wanted), np.ones((3, 3, 3)))
        lesions = np.where(pieces > 0, pieces + int(lesions.max(initial=0)), lesions).astype(np.uint16)
    return Loaded(image=one.image, lesions=lesions)


# -- folders of images -------------------------------------------------------------------------------------------------
def _plain(path: Path, files: Mapping[str, dict[str, str]]) -> tuple[Source, ...]:
    series: dict[str, list[str]] = {}
    for name, header in files.items():
        if header.get("Modality") not in NO_PICTURE:
            stacked = header.get("Modality") in STACKED
            place = f"{PurePosixPath(name).parent}|{header.get('SeriesInstanceUID')}"
            series.setdefault(place if stacked else name, []).append(name)
    table = read_patients(path, list(files)) or {}
    described = _listed(path)
    found = []
    for held in series.values():
        first = held[0]
        patient = files[first].get("PatientID", "")
        group = hidden(patient) if patient.strip().lower() not in NOBODY else _patient(path, first, table)
        parent = str(PurePosixPath(first).parent)
        alone = sum(place.startswith(f"{parent}|") for place in series) == 1  # the only series of its folder
        name = parent if len(held) > 1 and alone and parent != "." else first
        read = partial(_read_files, path, tuple(held), first in described)
        found.append(Source(name=name, group=group, read=read))
    return tuple(sorted(found, key=lambda one: one.name))


def _read_files(path: Path, names: tuple[str, ...], described: bool) -> Loaded:
    if len(names) == 1:
        return Loaded(image=read_image(path / names[0]), described=described)
    from HiResMedSynthLib.read_dicom import read_dicom_files

    files = [path / name for name in names]
    where = files[0].parent
    with quietly():
        image = read_dicom_files(files, where=where, spacing_mm=None, series=None, slice_index=None)
    return Loaded(image=image, described=described)


def _may_be_picture(path: Path, name: str) -> bool:
    short = PurePosixPath(name).name
    known = is_image_name(name) or name.lower().endswith(".mha")
    return short not in OUR_PICTURES and (known or bool(_header(path / name)))  # DICOM is often named by its UID


def _header(file: Path) -> dict[str, str]:
    """SeriesInstanceUID, Modality and PatientID of a DICOM file; empty for any other."""
    import pydicom

    tags = ["SeriesInstanceUID", "Modality", "PatientID"]
    try:
        with file.open("rb") as stream:
            if not looks_like_dicom(stream.read(132)):
                return {}
        with quietly():
            refuse_deflated_bomb(file)
            data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
            return {tag: str(data.get(tag) or "") for tag in tags}
    except Exception:  # pydicom raises whatever it meets in a damaged file: its reader will say so by name
        return {}


def _patient(path: Path, name: str, table: Mapping[str, Told]) -> str:
    """Hash of the patient: of the file's header, else of patients.csv, else the image's own name."""
    told = _header(path / name).get("PatientID", "") if (path / name).is_file() else ""
    if told.strip().lower() not in NOBODY:
        return hidden(told)
    return hidden(table[name].patient if name in table and table[name].patient else f"image {path / name}")


def _listed(path: Path) -> frozenset[str]:
    """Files that generated.json tells how they were made."""
    images = _json(path / "generated.json").get("images", []) if (path / "generated.json").is_file() else []
    return frozenset(str(one.get("file")) for one in images if isinstance(one, dict))


def _is_coco(path: Path, name: str) -> bool:
    if not name.endswith(".json") or "/" in name or (path / name).stat().st_size > LARGEST_JSON:
        return False
    text = (path / name).read_text(encoding="utf-8", errors="ignore")
    return '"annotations"' in text and '"images"' in text


def _json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReadError("it is no JSON file", where=file, remedy="Export or generate it anew.") from error
    return document if isinstance(document, dict) else {}


# -- one picture at a time ---------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """One film or slice, as it is compared.

    Args:
        name, group: of its source; the name of a slice ends in #number.
        image: a single slice.
        lesions: uint16 `[row, column]`, 0 = none; None where nobody marked any.
        background: a single slice without lesions; None where there is none.
    """

    name: str
    group: str
    image: MedicalImage
    lesions: NDArray[np.uint16] | None = None
    background: MedicalImage | None = None


def pictures(source: Source, loaded: Loaded, *, most: int, with_lesions: bool = False) -> list[Picture]:
    """The slices of a source that are compared: evenly spread, or those with most lesion, at most `most`."""
    image = loaded.image
    chosen = evenly(image.slices, most)
    if with_lesions and loaded.lesions is not None and loaded.lesions.any():
        area = (loaded.lesions > 0).sum(axis=(1, 2))
        chosen = sorted(int(k) for k in np.argsort(-area, kind="stable")[:most] if area[k])
    return [
        Picture(
            name=source.name if image.slices == 1 else f"{source.name}#{k}",
            group=source.group,
            image=image.single_slice(k),
            lesions=None if loaded.lesions is None else loaded.lesions[k],
            background=None if loaded.background is None else loaded.background.single_slice(k),
        )
        for k in chosen
    ]


def evenly(total: int, most: int) -> list[int]:
    """At most `most` whole numbers spread evenly over 0..total - 1, clear of both ends where there is room."""
    count = min(total, most)
    return [int((k + 0.5) * total / count) for k in range(count)]


def read_source(source: Source) -> Loaded:
    """The source, read.

    Raises:
        ReadError: it can't be read; the message names it.
    """
    try:
        return source.read()
    except HiResMedSynthError as error:
        raise ReadError(error.what, where=source.name, remedy=error.remedy) from error
