"""export(composition, out): everything of a case in one folder, all or nothing.

out/dicom/IM0001.dcm ...        the series         out/instance_mask.nii.gz   0, 1, 2 ... by lesion
out/dicom_background/           with pair=True     out/preview.png            before and after
out/segmentation.dcm            DICOM SEG          out/case.json              every choice
out/measurements.dcm            DICOM SR           out/lesions.safetensors    the drawn lesions
out/boxes_coco.json, out/labels_yolo/
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from HiResMedSynthLib.aside import bring_back, new_name_beside, swap
from HiResMedSynthLib.case_file import case_sha256, write_case
from HiResMedSynthLib.compose import Composition
from HiResMedSynthLib.errors import ExportError
from HiResMedSynthLib.export.boxes import write_boxes
from HiResMedSynthLib.export.burned_in import burned_in_warning
from HiResMedSynthLib.export.dicom_series import Compression, series_datasets, write_series
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.export.image_file import save_png
from HiResMedSynthLib.export.measurements import measurement_report
from HiResMedSynthLib.export.patient import StudyLabels, SyntheticStudy
from HiResMedSynthLib.export.preview import preview
from HiResMedSynthLib.export.segmentation import SegKind, segmentation
from HiResMedSynthLib.export.sop_class import object_kind
from HiResMedSynthLib.export.stored import stored_form
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.synthetic_words import COMPOSED, HOLDS_COMPOSED
from HiResMedSynthLib.write_volume import write_nifti

if TYPE_CHECKING:
    from pydicom import Dataset

Progress = Callable[[int, int, str], None]
BODY_PARTS = {"lung-ct": "CHEST", "cxr": "CHEST", "kub": "ABDOMEN"}
LAYOUT = {
    "dicom", "dicom_background", "segmentation.dcm", "measurements.dcm", "boxes_coco.json", "labels_yolo",
    "instance_mask.nii.gz", "preview.png", "case.json", "lesions.safetensors",
}  # fmt: skip
REMEDIES = {
    errno.ENOSPC: "Free some space, or choose a folder on another disk.",
    errno.EDQUOT: "Free some space, or choose a folder on another disk.",
    errno.EACCES: "Choose a folder that you may write.",
    errno.EPERM: "Choose a folder that you may write.",
    errno.EROFS: "Choose a folder on a disk that can be written.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@dataclass(frozen=True, kw_only=True)
class ExportedFolder:
    """What was written, what to beware of before it is shared, and what else a reader should know about it."""

    folder: Path
    slices: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def summary(self) -> str:
        """Where everything is, and what else to know, several lines; `warnings` are apart."""
        lines = [
            f"DICOM series   {self.folder / 'dicom'} ({self.slices} file(s))",
            f"DICOM SEG      {self.folder / 'segmentation.dcm'}",
            f"measurements   {self.folder / 'measurements.dcm'} (DICOM SR)",
            f"boxes          {self.folder / 'boxes_coco.json'}, {self.folder / 'labels_yolo'}",
            f"preview        {self.folder / 'preview.png'}",
            f"case           {self.folder / 'case.json'}",
        ]
        if (self.folder / "dicom_background").is_dir():
            lines.insert(1, f"without lesions {self.folder / 'dicom_background'}")
        return "\n".join([*lines, *(f"note           {note}" for note in self.notes)])


@dataclass(frozen=True, kw_only=True)
class _Choices:
    """The arguments of `export` that say what is written."""

    changed_only: bool
    pair: bool
    labels: StudyLabels
    seg: SegKind
    compress: Compression | None
    with_preview: bool
    with_report: bool


def check_target(out: Path, *, overwrite: bool) -> None:
    """Refuses a target that can't be written, before any work is done.

    Raises:
        ExportError: it exists and may not be replaced, or its parent can't be written.
    """
    try:
        bring_back(out)
        if out.exists() and not overwrite:
            raise ExportError(
                "the output already exists", where=out, remedy="Choose another --out, or add --overwrite."
            )
        if out.exists() and not (out.is_dir() and _is_replaceable(out)):
            raise ExportError(
                "the output exists and is no folder of an earlier case", where=out, remedy="Choose another --out."
            )
        parent = out.absolute().parent
        while not parent.exists():
            parent = parent.parent
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            raise ExportError("the output can't be made here", where=parent, remedy=REMEDIES[errno.EACCES])
    except OSError as error:  # even looking can be forbidden, or the name too long
        raise _refusal(out, error) from error


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty, or an earlier case of ours with nothing else in it."""
    names = {path.name for path in folder.iterdir()}
    if not names:
        return True
    try:
        document = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    ours = isinstance(document, dict) and document.get("synthetic") is True and "case_version" in document
    return ours and names <= LAYOUT


def export(
    composition: Composition,
    out: str | Path,
    *,
    overwrite: bool = False,
    changed_only: bool = False,
    pair: bool = False,
    labels: StudyLabels | None = None,
    identity: OutputIdentity | None = None,
    seg: SegKind = "binary",
    compress: Compression | None = None,
    with_preview: bool = True,
    with_report: bool = True,
    progress: Progress | None = None,
) -> ExportedFolder:
    """Writes a case into the new folder `out`: aside first, moved in place when whole.

    Args:
        composition: what `compose` returned.
        out: folder to make.
        overwrite: replace a folder of an earlier case.
        changed_only: write only the slices that hold a lesion.
        pair: also write the same series without lesions.
        labels: what to add to patient and study labels.
        identity: UIDs and date; None: new UIDs, of now.
        seg: segmentation.dcm as BINARY, a frame for each lesion and slice, or as LABELMAP, which few programs read yet.
        compress: lossless compression of the series and the segmentation; None: none.
        with_preview: write preview.png, which takes as long as drawing a small case.
        with_report: write measurements.dcm.
        progress: called with (done, total, what).

    Raises:
        ExportError: the target exists, can't be written, or the disk is full; nothing is left behind.
    """
    out = Path(out)
    if not composition.lesions:
        raise ExportError("the case holds no lesion", where=out, remedy="Draw it anew with at least one lesion.")
    check_target(out, overwrite=overwrite)
    out = out.resolve()
    made = _missing_parents(out)
    aside: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        aside = new_name_beside(out)
        aside.mkdir()
        choices = _Choices(
            changed_only=changed_only,
            pair=pair,
            labels=labels or StudyLabels(),
            seg=seg,
            compress=compress,
            with_preview=with_preview,
            with_report=with_report,
        )
        study = SyntheticStudy.of_case(case_sha256(composition.case), choices.labels, identity)
        exported = _write(composition, aside, out, choices, study, progress or (lambda _d, _t, _w: None))
        check_target(out, overwrite=overwrite)  # whatever came there meanwhile
        swap(aside, out)
    except OSError as error:
        raise _refusal(out, error) from error
    finally:
        _clean_up(aside, made)
    return exported


def _refusal(out: Path, error: OSError) -> ExportError:
    return ExportError(
        f"the case can't be written ({error.strerror or error})",
        where=out,
        remedy=REMEDIES.get(error.errno or 0, "Choose another folder and try again."),
    )


def _write(
    composition: Composition,
    folder: Path,
    out: Path,
    choices: _Choices,
    study: SyntheticStudy,
    progress: Progress,
) -> ExportedFolder:
    image = composition.image
    kind = object_kind(image, composition.case.settings.modality)
    notes = [f"written as {_name(kind.sop_class_uid)}: {kind.reason}"]
    form = stored_form(image, composition.background)
    if not form.exact:
        notes.append("16 bits can't hold the source's values exactly: they were rounded")
    if choices.pair and choices.changed_only and len(composition.changed_slices) < image.slices:
        notes.append("the pair holds the changed slices only: to replay the case, name the whole background")
    slices = composition.changed_slices if choices.changed_only else tuple(range(image.slices))
    derivation = _derivation(composition, kind.reason)
    body_part = BODY_PARTS.get(composition.case.background.domain)
    window = composition.background.display_window()  # one for both series: a pair is shown alike
    total = len(slices)

    def written(shown: MedicalImage, name: str, number: int, description: str, how: str) -> list[Dataset]:
        datasets = series_datasets(
            shown,
            kind,
            study,
            description=description,
            derivation=how,
            series_number=number,
            slices=slices,
            body_part=body_part,
            window=window,
            form=form,
        )
        return write_series(datasets, folder / name, total=total, compress=choices.compress, progress=progress)

    headers = written(
        image, "dicom", 1, f"SYNTHETIC {choices.labels.series_description.strip() or 'lesions'}", derivation
    )
    if choices.pair:
        how = "Background of a synthetic case, pixels unchanged, header rebuilt. Research only"
        if HOLDS_COMPOSED in composition.background.oddities:  # it goes on saying so
            how = f"{how}; earlier {COMPOSED}"
        written(composition.background, "dicom_background", 2, "SYNTHETIC pair, background without lesions", how)
    progress(0, 3, "writing masks and boxes")
    masks = segmentation(composition, headers, study, kind=choices.seg, compress=choices.compress)
    masks.save_as(folder / "segmentation.dcm", enforce_file_format=True)
    if choices.with_report:
        report = measurement_report(composition, headers, masks, study)
        report.save_as(folder / "measurements.dcm", enforce_file_format=True)
    write_boxes(composition, folder, slices)
    mask = composition.instance_mask[list(slices)]
    mask = mask.astype(np.uint8 if mask.max() < 256 else np.uint16)
    note = write_nifti(mask, image, folder / "instance_mask.nii.gz", slices)
    notes += [note] if note else []
    if choices.with_preview:
        progress(1, 3, "drawing the preview")
        save_png(preview(composition), folder / "preview.png")
    write_case(composition.case, folder)
    progress(3, 3, "case written")
    warning = burned_in_warning(image)
    return ExportedFolder(folder=out, slices=total, notes=tuple(notes), warnings=(warning,) if warning else ())


def _derivation(composition: Composition, reason: str) -> str:
    case = composition.case
    blanked = f"; {len(case.background.blanked)} box(es) of text blanked before" if case.background.blanked else ""
    marked = "; lesions marked invisibly" if case.settings.watermark else ""
    text = (
        f"SYNTHETIC: {len(case.lesions)} lesion(s) composed into an image, fusion {case.settings.fusion}, "
        f"seed {case.seed}{blanked}{marked}; this object class because {reason}. Research only, not for diagnosis"
    )
    return text[:1024]


def _name(sop_class_uid: str) -> str:
    from pydicom.uid import UID

    return str(UID(sop_class_uid).name)


def _missing_parents(out: Path) -> list[Path]:
    """Parents that will have to be made, innermost first."""
    missing = []
    for parent in out.parents:
        if parent.exists():
            break
        missing.append(parent)
    return missing


def _clean_up(aside: Path | None, made: list[Path]) -> None:
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    for parent in made:
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()
