"""provenance_of(path): whether a file or an exported folder is of this program, by its tag, its case and its mark."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from HiResMedSynthLib import mark
from HiResMedSynthLib.case_file import CASE_FILE, read_case
from HiResMedSynthLib.compose import footprint
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.export.image_file import MARK
from HiResMedSynthLib.export.patient import CASE_HASH, MODEL
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import PICTURE_MAGIC, VOLUME_SUFFIXES, read_image
from HiResMedSynthLib.read_bounds import breaks_itk, refuse_deflated_bomb
from HiResMedSynthLib.read_dicom import looks_like_dicom
from HiResMedSynthLib.read_volume import header_text
from HiResMedSynthLib.write_volume import NIFTI_MARK

SERIES = "dicom"  # of an exported folder
MOST_SLICES = 400  # that are searched where nothing tells the place of a mark
MOST_NAMES = 3  # of files without a sign that are named
SLICES = ("CT", "MR", "PT", "SEG", "SR")  # modalities whose files are no pictures by themselves
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Sign:
    """One way of telling: its answer, and what it rests on in one clause."""

    answer: mark.Answer
    why: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a file or folder says of where it is from.

    Args:
        path: what was asked about.
        tag, case, mark: the three signs.
        unmarked: names of the files in a folder that don't say so while others do: never ours as a whole.
    """

    path: Path
    tag: Sign
    case: Sign
    mark: Sign
    unmarked: tuple[str, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether any sign says yes, and no file of a folder is without one."""
        return not self.unmarked and "yes" in (self.tag.answer, self.case.answer, self.mark.answer)

    def summary(self) -> str:
        """The three answers and the verdict, four lines."""
        lines = [f"{name:<8}{sign.answer}: {sign.why}" for name, sign in self._signs()]
        verdict = "made by HiResMedSynth, synthetic" if self.ours else "no sign of HiResMedSynth; that proves nothing"
        if self.unmarked:
            verdict = "mixed: some files are by HiResMedSynth, others may be real patients'"
        return "\n".join([*lines, f"so      {verdict}"])

    def _signs(self) -> tuple[tuple[str, Sign], ...]:
        return ("tag", self.tag), ("case", self.case), ("mark", self.mark)


def provenance_of(path: str | Path, *, progress: Progress | None = None) -> Provenance:
    """The signs in a DICOM file, picture or volume, or in all of them in a folder (an exported case, a data set).

    Args:
        path: file or folder.
        progress: called with (pictures looked at, pictures) where the mark is looked for in each picture of a folder.

    Raises:
        ReadError: there is nothing there, or it can't be read at all.
    """
    path = Path(path)
    if not path.exists():
        raise ReadError("there is no such file or folder", where=path, remedy="Check the path.")
    series = path / SERIES if path.is_dir() and (path / SERIES).is_dir() else path
    try:
        files = _files(path)
        texts = [_told(file) for file in files]
        case_json = _case_beside(path)
        signed = {file for file, told in zip(files, texts, strict=True) if told.signed}
        pictures = [file for file, told in zip(files, texts, strict=True) if told.modality not in SLICES]
        if path.is_dir() and case_json is None and len(pictures) > 1:
            found, by_mark = _marks(pictures, progress or (lambda _done, _total: None), of=len(files))
            signed |= by_mark
        else:
            found = _mark(series, case_json, alone_for=0 if signed else len(files))
        silent = [file for file in files if file not in signed]
        unmarked = tuple(file.relative_to(path).as_posix() for file in silent) if signed else ()
        return Provenance(
            path=path, tag=_tag(texts, unmarked), case=_case(texts, case_json), mark=found, unmarked=unmarked
        )
    except OSError as error:
        raise ReadError(
            f"it can't be read ({error.strerror or error})", where=path, remedy="Check that you may read it."
        ) from error


@dataclass(frozen=True)
class _Told:
    """What one file's header says."""

    ours: bool
    synthetic: bool
    case_sha256: str | None
    modality: str = ""

    @property
    def signed(self) -> bool:
        """Whether it says that it is ours, in one way or the other."""
        return self.ours or self.case_sha256 is not None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "DICOMDIR")
    shown = [file for file in found if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    images = [file for file in shown if _is_image(file)]
    if not images and not (path / CASE_FILE).is_file():
        raise ReadError("the folder holds no image", where=path, remedy="Name a file, an exported case or a data set.")
    return images


def _is_image(file: Path) -> bool:
    with file.open("rb") as stream:
        head = stream.read(132)
    other = head.startswith((*PICTURE_MAGIC, b"NRRD")) or file.name.lower().endswith(VOLUME_SUFFIXES)
    return other or looks_like_dicom(head)


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return looks_like_dicom(stream.read(132))


def _told(file: Path) -> _Told:
    with file.open("rb") as stream:
        head = stream.read(132)
    if looks_like_dicom(head):
        return _told_by_dicom(file)
    text = _text_in(file, head)
    synthetic = MARK in text or NIFTI_MARK in text
    return _Told(synthetic, synthetic, None)


def _told_by_dicom(file: Path) -> _Told:
    import pydicom

    try:
        refuse_deflated_bomb(file)
        data = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        equipment: Any = data.get("ContributingEquipmentSequence") or []
        descriptions = [
            str(item.get("ContributionDescription") or "")
            for item in equipment
            if item.get("ManufacturerModelName") == MODEL
        ]
        synthetic = data.get("SyntheticData") == "YES"
    except ReadError:
        raise
    except Exception as error:  # pydicom raises whatever its parsing meets in a damaged file
        raise ReadError(
            f"its header is damaged ({type(error).__name__})", where=file, remedy="Copy the file anew from its source."
        ) from error
    hashes = re.findall(f"{CASE_HASH}([0-9a-f]{{64}})", " ".join(descriptions))
    modality = str(data.get("Modality") or "")
    return _Told(synthetic and bool(descriptions), synthetic, hashes[0] if hashes else None, modality)


def _text_in(file: Path, head: bytes) -> str:
    """What a PNG, NRRD or NIfTI file says of itself; empty for other kinds."""
    if head.startswith(b"\x89PNG"):
        from PIL import Image

        try:
            with Image.open(file) as picture:
                return " ".join(str(value) for value in picture.info.values())
        except Exception:  # Pillow's decoders raise whatever they meet in a damaged file
            return ""
    if head.startswith(b"NRRD") or file.name.lower().endswith((".nii", ".nii.gz")):
        import SimpleITK as sitk

        if breaks_itk(file):
            return ""
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return ""
        return header_text(reader)
    return ""


def _case_beside(path: Path) -> Path | None:
    """The case.json of a folder, or of the exported folder that a file lies in."""
    folders = [path] if path.is_dir() else [path.parent]
    folders.append(folders[0].absolute().parent)
    return next((folder / CASE_FILE for folder in folders if (folder / CASE_FILE).is_file()), None)


def _tag(told: list[_Told], unmarked: tuple[str, ...]) -> Sign:
    if told and all(one.ours for one in told):
        return Sign(answer="yes", why="every header says synthetic, by HiResMedSynth")
    if unmarked:
        are = "is" if len(unmarked) == 1 else "are"
        return Sign(answer="no", why=f"{len(unmarked)} of {len(told)} files {are} NOT marked: {_some(unmarked)}")
    if any(one.ours for one in told):
        return Sign(answer="yes", why="every header says synthetic, by HiResMedSynth, or names a case of it")
    if any(one.synthetic for one in told):
        return Sign(answer="no", why="synthetic by its header (0008,001C), of another program")
    return Sign(answer="cannot tell", why="no header says so; a header is easily lost")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (" ..." if len(names) > MOST_NAMES else "")


def _case(told: list[_Told], case_json: Path | None) -> Sign:
    named = {one.case_sha256 for one in told if one.case_sha256 is not None}
    if not named:
        return Sign(answer="cannot tell", why="no header names a case")
    if case_json is None and len(named) > 1:
        return Sign(answer="cannot tell", why=f"of {len(named)} cases: verify the folder of one to compare its hash")
    if case_json is None:
        return Sign(answer="cannot tell", why=f"of the case {sorted(named)[0][:12]}..., whose case.json isn't here")
    found = hashlib.sha256(case_json.read_bytes()).hexdigest()
    if named == {found}:
        return Sign(answer="yes", why="case.json beside has the hash that the headers name")
    return Sign(answer="no", why="case.json beside is another case's, or was changed")


def _mark(series: Path, case_json: Path | None, *, alone_for: int) -> Sign:
    """Of the series; where it would speak alone for that many files of a folder, all of them must be in it."""
    try:
        image = read_image(series)
    except HiResMedSynthError as error:
        return Sign(answer="cannot tell", why=f"no picture to look at ({error.what})")
    if image.slices < alone_for:
        return Sign(answer="cannot tell", why="the folder holds more than one series: verify its files one by one")
    known = _where_the_case_put_it(image, series, case_json)
    if isinstance(known, Sign):
        return known
    if known is not None:
        inside, amplitude, slices = known
        found = mark.find_at(image.pixels, inside, amplitude=amplitude, slices=slices)
        return _said(found, "in the lesions", lossy=image.facts.lossy_image_compression == "01")
    middle = image.pixels[image.slices // 2]
    whole = mark.find_whole(middle, amplitude=mark.amplitude_for(image))
    if whole.answer == "yes":
        return _said(whole, "all over the picture")
    step = -(-image.slices // MOST_SLICES)
    part = mark.find_anywhere(image.pixels[::step])
    if part.answer == "yes":
        return _said(part, "in a part of the picture")
    over = "none all over the picture; " if whole.answer == "no" else ""
    return Sign(
        answer="cannot tell", why=f"{over}in small or noisy places a mark can't be seen, and it is off by default"
    )


def _marks(pictures: Sequence[Path], progress: Progress, *, of: int) -> tuple[Sign, set[Path]]:
    """(the mark in the pictures of a folder with so many files, as one sign; those in which it is, all over)."""
    found: set[Path] = set()
    false_alarm = 0.0
    for done, file in enumerate(pictures):
        progress(done, len(pictures))
        try:
            image = read_image(file)
        except HiResMedSynthError:
            continue
        one = mark.find_whole(image.pixels[image.slices // 2], amplitude=mark.amplitude_for(image))
        if one.answer == "yes":
            found.add(file)
            false_alarm += one.false_alarm
    progress(len(pictures), len(pictures))
    where = f"all over {len(found)} of {of} files"
    if len(found) == of:
        return Sign(answer="yes", why=f"the pattern is {where} (by chance at most {false_alarm:.0e})"), found
    if not found:
        return Sign(answer="cannot tell", why=f"the pattern is all over none of {len(pictures)} pictures"), found
    names = [file.name for file in pictures if file not in found]
    but = f"; not over {_some(names)}" if names else ""
    return Sign(answer="cannot tell", why=f"the pattern is {where}{but}"), found


def _where_the_case_put_it(
    image: MedicalImage, series: Path, case_json: Path | None
) -> tuple[np.ndarray, float, list[int]] | Sign | None:
    """(footprint, strength, indices of the slices) where the case beside tells them; an answer where it has no mark."""
    if case_json is None:
        return None
    try:
        case = read_case(case_json)
    except HiResMedSynthError:
        return None
    if case.settings.watermark == 0:
        return Sign(answer="no", why="case.json says that none was put in")
    slices = _slice_indices(series) or list(range(case.background.shape[0]))
    if image.shape != (len(slices), *case.background.shape[1:]) or slices[-1] >= case.background.shape[0]:
        return None
    inside = footprint(case)[slices]
    if not inside.any():
        return Sign(answer="no", why="this slice holds no lesion")
    return inside, case.settings.watermark, slices


def _slice_indices(series: Path) -> list[int]:
    """Which slices of the case a series of ours holds, by its Instance Numbers; empty where it is no DICOM."""
    import pydicom

    files = [series] if series.is_file() else [file for file in series.iterdir() if file.is_file()]
    headers = [pydicom.dcmread(file, stop_before_pixels=True, force=True) for file in files if _is_dicom(file)]
    try:
        return sorted(max(int(header.get("InstanceNumber") or 1) - 1, 0) for header in headers)
    except (TypeError, ValueError):  # not our header
        return []


def _said(found: mark.MarkFinding, where: str, *, lossy: bool = False) -> Sign:
    if found.answer == "yes":
        chance = f"by chance at most {found.false_alarm:.0e}"
        why = f"the pattern is {where}, {abs(found.z):.1f} standard deviations ({chance})"
    elif found.answer == "no" and lossy:
        return Sign(answer="cannot tell", why="the picture was compressed with loss, which can take a mark away")
    elif found.answer == "no":
        why = f"it would stand at {found.expected_z:.0f} standard deviations {where}, and is not there"
    else:
        why = f"{where} there are too few pixels, or too noisy ones, to see it"
    return Sign(answer=found.answer, why=why)
