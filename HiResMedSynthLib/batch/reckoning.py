"""What a data set will take, reckoned from headers alone: no pixel is read and no case made (`estimate` makes some)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from HiResMedSynthLib.batch.backgrounds import Background, files_of
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.read import PICTURE_MAGIC
from HiResMedSynthLib.read_bounds import breaks_itk
from HiResMedSynthLib.read_dicom import looks_like_dicom
from HiResMedSynthLib.read_quietly import quietly

MOST_LOOKED_AT = 40  # backgrounds, evenly among all; the others are taken to be as large on average
MADE_SIDE = 1024  # of a film to be made, where the spec doesn't tell
# processor seconds, by docs/results/dataset_speed.md: .79 a slice case of .26 million pixels, 10.7 a volume case of
# 78.6 million, 30.6 more for the first of a background
CASE_S, CASE_S_PER_MILLION, BACKGROUND_S_PER_MILLION = 0.76, 0.126, 0.39
BYTES_A_PIXEL = 2


@dataclass(frozen=True, kw_only=True)
class Reckoning:
    """What was reckoned.

    Args:
        pixels: of an average background, voxels of volumes counted all.
        seconds: for the whole data set with so many workers, in DICOM.
        bytes: of its DICOM pixels; None where another form, compression or a part of the slices is written.
        looked_at: backgrounds whose header was read.
    """

    pixels: float
    seconds: float
    bytes: int | None
    looked_at: int


def reckoned(plan: Plan, *, workers: int) -> Reckoning | None:
    """Bytes and seconds by the number of pixels; None where no header of those looked at tells it."""
    step = -(-len(plan.backgrounds) // MOST_LOOKED_AT)
    size = plan.spec.backgrounds.generated.size if plan.spec.backgrounds.generated else None
    counts = [_pixels_of(one, made_side=size or MADE_SIDE) for one in plan.backgrounds[::step]]
    known = [count for count in counts if count]
    if not known:
        return None
    pixels = sum(known) / len(known)
    output, millions = plan.spec.output, pixels / 1e6
    used = min(len(plan.backgrounds), plan.count)
    seconds = plan.count * (CASE_S + CASE_S_PER_MILLION * millions) + used * BACKGROUND_S_PER_MILLION * millions
    plain = output.formats == ("dicom",) and output.compress is None and not output.changed_only
    written = plan.count * (2 if plan.spec.cases.paired else 1) * pixels * BYTES_A_PIXEL
    return Reckoning(
        pixels=pixels, seconds=seconds / workers, bytes=round(written) if plain else None, looked_at=len(known)
    )


def _pixels_of(background: Background, *, made_side: int) -> int:
    """How many pixels a background has by its header; 0 where that doesn't tell."""
    path = background.path
    if path is None:
        return made_side**2
    try:
        files = [path] if path.is_file() else files_of(path)
        kinds = {file: _head(file) for file in files}
        dicom = [file for file, head in kinds.items() if looks_like_dicom(head)]
        if dicom:
            return _dicom_pixels(dicom, background)
        return _picture_pixels(files[0], kinds[files[0]], one_slice=background.slice_index is not None)
    except Exception:  # whatever a damaged header makes its reader raise: told when a case is to be put into it
        return 0


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(132)


def _dicom_pixels(files: list[Path], background: Background) -> int:
    import pydicom

    tags = ["Rows", "Columns", "NumberOfFrames", "SeriesInstanceUID"]
    total = 0
    for file in files:
        with quietly():
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
        if "Rows" not in header:  # a report, a presentation state
            continue
        if background.series is not None and header.get("SeriesInstanceUID") != background.series:
            continue
        plane = int(header.Rows) * int(header.Columns)
        if background.slice_index is not None:
            return plane
        total += plane * int(header.get("NumberOfFrames") or 1)
        if background.series is None and len(files) > 1:
            return total * len(files)
    return total


def _picture_pixels(file: Path, head: bytes, *, one_slice: bool) -> int:
    if head.startswith(PICTURE_MAGIC):
        from PIL import Image

        with Image.open(file) as picture:
            return picture.width * picture.height
    import SimpleITK as sitk

    if breaks_itk(file):
        return 0
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    columns, rows, *more = reader.GetSize()
    return int(columns * rows * (more[0] if more and not one_slice else 1))
