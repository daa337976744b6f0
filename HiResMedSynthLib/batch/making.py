"""Makes cases of a plan, one by one: reads, draws, composes, writes; the ground of a background is kept for the next.

A case is done when its record stands under .work/records; until then nothing of it counts. Files are written aside and
moved in place whole, so that a run that is killed at any moment leaves no half a file under a final name.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from HiResMedSynthLib.batch.backgrounds import Background, read_source
from HiResMedSynthLib.batch.case_record import record_of
from HiResMedSynthLib.batch.films import FilmMaker
from HiResMedSynthLib.batch.layout import Layout, MadeCase, whole_text
from HiResMedSynthLib.batch.layout_dicom import DicomFolders
from HiResMedSynthLib.batch.layout_pictures import Coco, Yolo
from HiResMedSynthLib.batch.layout_volumes import Monai, NnUnet
from HiResMedSynthLib.batch.plan import CasePlan, Plan
from HiResMedSynthLib.batch.spec import Cases, Output
from HiResMedSynthLib.batch.thumbs import SHEET_CASES, thumb
from HiResMedSynthLib.case import Case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import ExportError, HiResMedSynthError, PlacementError
from HiResMedSynthLib.export.identity import OutputIdentity
from HiResMedSynthLib.free_memory import is_short_of_memory
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.mark import amplitude_for

WORK = ".work"
GROUND_VOXELS = 2**22  # of the grounds kept: sixteen slices of 512 x 512, or one volume
OTHER_KEYS = {  # options whose key of the spec is not of [cases], or has another form
    "--spacing-mm ROW[,COLUMN]": "backgrounds.spacing_mm = [ROW, COLUMN]",
    "--spacing-mm": "backgrounds.spacing_mm",
    "--slice NUMBER": 'backgrounds.slices = "each"',
}
OTHER_COMMAND = r"(?:python -m|hiresmedsynth) (?:[\w ]|\.(?=\w))+(?: --\S+(?: \w\S*)?)+"  # its options are its own
MOMENT = datetime(2000, 1, 1, tzinfo=UTC)  # date of all objects: a data set has none, or its bytes would differ


class WritingError(HiResMedSynthError):
    """The data set can't be written: no matter of the case, so the run ends."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case.

    Args:
        number: of the case.
        failure: why it could not be made, or "".
        seconds: that it took.
        bytes: of its files.
    """

    number: int
    failure: str = ""
    seconds: float = 0.0
    bytes: int = 0


def layouts_of(output: Output) -> dict[str, Layout]:
    """The layouts that a spec asks for, by name."""
    known: dict[str, Layout] = {
        "dicom": DicomFolders(output), "coco": Coco(), "yolo": Yolo(), "nnunet": NnUnet(output), "monai": Monai(),
    }  # fmt: skip
    return {name: known[name] for name in output.formats}


def record_path(out: Path, number: int) -> Path:
    """Where the record of a case stands."""
    return out / WORK / "records" / f"{number // 1000:03d}" / f"{number:07d}.json"


def thumb_path(out: Path, number: int) -> Path:
    """Where the small picture of a case for the contact sheet stands."""
    return out / WORK / "thumbs" / f"{number:07d}.png"


def is_done(plan: Plan, out: Path, number: int) -> bool:
    """Whether a case is whole; one of those for the contact sheet needs its picture too."""
    shown = number in plan.sample(SHEET_CASES)
    return record_path(out, number).exists() and (not shown or thumb_path(out, number).exists())


class Maker:
    """Makes cases of one plan into one folder.

    Args:
        plan: what is to be made.
        out: folder of the data set; it exists.
    """

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out = plan, out
        self.layouts = layouts_of(plan.spec.output)
        self.source: tuple[Any, MedicalImage] | None = None
        self.grounds: OrderedDict[int, Ground] = OrderedDict()

    def make(self, number: int) -> Outcome:
        """Makes one case and writes it; what is wrong with the case is told, not raised.

        Raises:
            WritingError: the folder can't be written.
        """
        start = time.perf_counter()
        aside = self.out / WORK / "tmp" / f"{number:07d}-{os.getpid()}"
        try:
            written = self._write(self._drawn(self.plan.case(number)), aside)
        except ExportError as error:
            raise WritingError(error.what, where=self.out, remedy=error.remedy) from error
        except OSError as error:
            if error.filename is None or self._is_ours(error.filename):
                raise WritingError(
                    f"the data set can't be written ({error.strerror or error})", where=self.out,
                    remedy="Free space or mend the folder, then run the same command again: it goes on.",
                ) from error  # fmt: skip
            return Outcome(number=number, failure=f"a background can't be read ({error.strerror})")
        except HiResMedSynthError as error:
            return Outcome(number=number, failure=_without_path(error), seconds=time.perf_counter() - start)
        except Exception as error:  # one case must not end a run of a million
            if is_short_of_memory(error):
                return Outcome(number=number, failure="there is not enough memory for it: use fewer workers")
            if os.environ.get("HIRESMEDSYNTH_DEBUG"):
                raise
            return Outcome(number=number, failure=f"a bug of HiResMedSynth ({type(error).__name__})")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Outcome(number=number, seconds=time.perf_counter() - start, bytes=written)

    def _is_ours(self, name: str | bytes) -> bool:
        return Path(os.fsdecode(name)).is_relative_to(self.out)

    def _drawn(self, wanted: CasePlan) -> tuple[CasePlan, int, MadeCase]:
        """(plan, index of the background taken, the case): on the first of its backgrounds that has room for it."""
        problem: PlacementError | None = None
        for index in wanted.backgrounds:
            try:
                return wanted, index, self._drawn_in(wanted, index)
            except PlacementError as error:
                problem = problem or error
        assert problem is not None
        raise problem

    def _drawn_in(self, wanted: CasePlan, index: int) -> MadeCase:
        ground, cases = self._ground(index), self.plan.spec.cases
        settings = cases.settings(wanted.requests)
        if cases.watermark:
            settings = replace(settings, watermark=amplitude_for(ground.image))
        case: Case = draw_case(
            ground.image,
            settings,
            wanted.seed,
            bank=self.plan.bank_of(wanted.side),
            ground=ground,
            source_slice=self.plan.backgrounds[index].slice_index,
        )
        return MadeCase(
            number=wanted.number,
            name=wanted.name,
            side=wanted.side,
            composition=compose(ground.image, case),
            negative=wanted.negative,
            paired=cases.paired,
            identity=OutputIdentity(seed=f"{self.plan.sha256}/{wanted.number}", moment=MOMENT),
        )

    def _ground(self, index: int) -> Ground:
        if index not in self.grounds:
            while sum(ground.image.pixels.size for ground in self.grounds.values()) >= GROUND_VOXELS:
                self.grounds.popitem(last=False)  # before the next is read: two volumes would be held at once
            cases, image = self.plan.spec.cases, self._image(self.plan.backgrounds[index])
            self.grounds[index] = prepare_ground(
                image, domain=cases.domain, margins=cases.margins, placement=cases.placement
            )
        self.grounds.move_to_end(index)
        return self.grounds[index]

    def _image(self, background: Background) -> MedicalImage:
        if self.source is None or self.source[0] != background.source:
            self.source = None
            made = background.made_seed
            image = read_source(background) if made is None else self._films.film(made)
            self.source = background.source, image
        whole = self.source[1]
        if background.slice_index is None:
            return whole
        image = whole.single_slice(background.slice_index)
        return image.with_pixels(image.pixels.copy())  # a view would keep its whole volume in memory

    @cached_property
    def _films(self) -> FilmMaker:
        generated = self.plan.spec.backgrounds.generated
        assert generated is not None
        return FilmMaker(generated)

    def _write(self, drawn: tuple[CasePlan, int, MadeCase], aside: Path) -> int:
        """Writes a case aside, moves it in place and marks it done; returns the bytes of its files."""
        wanted, index, made = drawn
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        entries = {name: layout.write(made, aside) for name, layout in self.layouts.items()}
        held = sum(file.stat().st_size for file in aside.rglob("*") if file.is_file())
        if wanted.number in self.plan.sample(SHEET_CASES):
            place = thumb_path(self.out, wanted.number)
            place.parent.mkdir(parents=True, exist_ok=True)
            thumb(made).save(aside / place.name)
            (aside / place.name).replace(place)
        for name, layout in self.layouts.items():
            for path in dict.fromkeys(path for entry in entries[name] for path in layout.paths(entry)):
                _move(aside / path, self.out / path)
        record = record_of(self.plan, wanted, index, made, entries=entries, held=held)
        whole_text(record_path(self.out, wanted.number), json.dumps(record))
        return held


def _move(source: Path, target: Path) -> None:
    """Moves a file or folder in place of what an interrupted run may have left there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir() and target.exists():
        shutil.rmtree(target)
    source.replace(target)


def _without_path(error: HiResMedSynthError) -> str:
    """An error in words that may be written: a path could name a person. Options are told as keys of the spec."""

    def key(option: re.Match[str]) -> str:
        name = (option[1] or "").replace("-", "_")
        return f"cases.{name}" if name in Cases.model_fields else option[0]

    remedy = error.remedy.replace(", or the field Pixel spacing in Slicer", "")
    for option, told in OTHER_KEYS.items():
        remedy = remedy.replace(option, told)
    return f"{error.what.rstrip('.')}. {re.sub(rf'{OTHER_COMMAND}|--([a-z-]+)', key, remedy)}"
