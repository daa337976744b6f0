"""Three small lung CT series of three patients, cut from the repository's own, and specs over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from HiResMedSynthLib.batch.backgrounds import find_backgrounds
from HiResMedSynthLib.batch.making import Maker, Outcome
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.spec import read_spec
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.read import read_image
from Testing.slices import write_slice

PATIENTS = ("MARKER-ANNA", "MARKER-BERTA", "MARKER-CARL")  # no file that is written may hold these
SLICES = 2  # of each patient
CASES = 'lesions = [1, 2]\nsize_mm = [10, 16]\ndanger = "rule"\n'


def write_scans(source: Path, folder: Path, patients: Sequence[str] = PATIENTS) -> None:
    """folder/scan0 ... with two slices each of 128 x 128 pixels; Patient ID and names as a hospital would have them."""
    image = read_image(source)
    for number, patient in enumerate(patients):
        for k in range(SLICES):
            index = (number * 4 + k) % image.slices
            stored = (image.pixels[index, ::4, ::4] + 1024).clip(0, 4095).astype(np.uint16)
            write_slice(
                folder / f"scan{number}" / f"{k}.dcm", stored,
                BitsStored=12, HighBit=11, PixelSpacing=[3.367, 3.367], SliceThickness=5,
                ImagePositionPatient=[0, 0, 5 * k], InstanceNumber=k + 1, PatientID=patient,
                PatientName="MARKER^NAME", SeriesInstanceUID=f"1.2.826.0.1.{number + 1}",
                SOPInstanceUID=f"1.2.826.0.1.{number + 1}.{k + 1}",
            )  # fmt: skip


def write_spec(
    folder: Path, *, files: str = "scan*", backgrounds: str = 'slices = "each"', cases: str = "", output: str = ""
) -> Path:
    """A spec over all scans of the folder."""
    path = folder / "spec.toml"
    path.write_text(
        f'[backgrounds]\nfiles = ["{files}"]\n{backgrounds}\n[cases]\n{CASES}{cases}\n[output]\n{output}\n',
        encoding="utf-8",
    )
    return path


def plan_of(spec: Path, count: int | None = None) -> Plan:
    """The plan of a spec, as the command line makes it."""
    read = read_spec(spec)
    read = read if count is None else read.with_count(count)
    return Plan(read, find_backgrounds(read.backgrounds, spec.parent), load_bank())


def made_here(plan: Plan, out: Path, groups: Sequence[Sequence[int]]) -> Iterator[Outcome]:
    """Makes cases in this process: the engine of tests that need no other."""
    maker = Maker(plan, out)
    for group in groups:
        for number in group:
            yield maker.make(number)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
