"""new_study: draws a blinded, balanced reader study from a real and a synthetic folder, and writes it whole or not.

What could tell beside the image is made equal: one window, size and encoder for all, CT on the same scale of HU, other
images by the same percentiles on as many grey levels as the coarsest of them has; names and times of files say nothing.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from HiResMedSynthLib.errors import ExportError, SettingsError
from HiResMedSynthLib.evaluation.comparable import (
    Grid,
    Progress,
    Shared,
    SharedPatientError,
    UnlikeScaleError,
    common_grid,
    shared_patients,
)
from HiResMedSynthLib.evaluation.image_sets import find_images
from HiResMedSynthLib.evaluation.reader_study import (
    ALTERNATIVES,
    DESIGN_FILE,
    HIGHEST,
    IMAGES,
    KEY_FILE,
    Design,
    Key,
    KeyEntry,
    Shown,
    Study,
    StudyError,
    Task,
    checked_readers,
    document_bytes,
    image_path,
    open_study,
    packed,
)
from HiResMedSynthLib.evaluation.study_pictures import (
    LOWEST_HU,
    ChosenPicture,
    choose,
    cut_out,
    same_group,
    study_values,
)
from HiResMedSynthLib.evaluation.study_statistics import fewest_trials
from HiResMedSynthLib.image import Window

FEWEST_LEVELS = 32
LARGEST_SEED = 2**63
MOST_TRIALS = 2000
RING_MARGIN = 12.0  # pixels around the largest lesion


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What is asked for.

    Args:
        task: "yes-no", "2afc" or "4afc" (which of so many is synthetic).
        count: trials that each reader sees; of yes-no half are real.
        readers: their names.
        seed: of the choice, the order and the positions.
        window: in HU or stored values; None: the one that all images tell.
        crop: (rows, columns) cut out around the lesion where both sides have one marked, else around the middle.
        slices: how many slices of one series may take part.
        ring: whether a ring, the same for all, shows where to look; None: where lesions are marked on both sides.

    Raises:
        StudyError: too few trials to say anything, or an odd number of yes-no trials.
    """

    task: Task
    count: int
    readers: tuple[str, ...]
    seed: int = 0
    window: Window | None = None
    crop: tuple[int, int] | None = None
    slices: int = 1
    ring: bool | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "readers", checked_readers(self.readers))
        fewest = fewest_trials(1 / max(2, ALTERNATIVES[self.task]))
        if not fewest <= self.count <= MOST_TRIALS:
            raise StudyError(
                f"a study of {self.count} trials can't be made: with fewer than {fewest} even a reader who is always "
                "right can't be told from one who guesses",
                remedy=f"Take --count {fewest} to {MOST_TRIALS}; 100 is usual.",
            )
        if self.task == "yes-no" and self.count % 2:
            raise StudyError(
                f"{self.count} images can't be balanced between real and synthetic", remedy="Take an even --count."
            )
        if not 0 <= self.seed < LARGEST_SEED or self.slices < 1:
            raise StudyError("a seed or number of slices below zero can't be", remedy="Take --seed 0, --slices 1.")
        if self.crop is not None and min(self.crop) < 16:
            raise StudyError("a crop below 16 pixels shows nothing", remedy="Take --crop 128 or more.")
        if self.crop is not None and self.ring:
            raise StudyError("the lesion is in the middle of a crop, a ring is not needed", remedy="Leave --ring out.")

    def needed(self, *, synthetic: bool) -> int:
        """Pictures of a side."""
        if self.task == "yes-no":
            return self.count // 2
        return self.count if synthetic else self.count * (ALTERNATIVES[self.task] - 1)


def new_study(
    real: Path, synthetic: Path, out: Path, plan: StudyPlan, *, key: Path | None = None, progress: Progress
) -> tuple[Study, Key]:
    """Makes the study `out` from two folders; the key lies in it, or at `key`.

    Raises:
        StudyError: there are too few pictures, or lesions are marked on one side only where a crop needs them.
        SharedPatientError: a patient is on both sides.
        SettingsError, ReadError: the images can't be compared, or can't be read.
        ExportError: it can't be written.
    """
    for target in (out, *([key] if key else [])):
        if target.exists() or not target.absolute().parent.is_dir():
            what = "the output already exists" if target.exists() else "the folder of the output doesn't exist"
            raise ExportError(what, where=target, remedy="Choose another place for it.")
    if key is not None and key.absolute() == out.absolute():
        raise ExportError("the key can't have the study's own name", where=key, remedy="Choose another --key.")
    rng = np.random.default_rng(plan.seed)
    folders = [find_images(folder) for folder in (real, synthetic)]
    _refuse_shared(same_group(*folders))
    sides, notes = [], []
    for folder, is_made in zip(folders, (False, True), strict=True):
        needed = plan.needed(synthetic=is_made)
        found, told_of_it = choose(
            folder, synthetic=is_made, needed=needed, most=plan.slices, rng=rng, progress=progress
        )
        sides.append(found)
        notes += told_of_it
    _refuse_shared(shared_patients([one.facts for one in sides[0]], [one.facts for one in sides[1]]))
    grid, told = _matched(sides, plan)
    notes += [*told, *_size_note(sides)]
    chosen = [*sides[0], *sides[1]]
    tokens = [rng.bytes(8).hex() for _ in chosen]
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.absolute().parent) as place:
            made = Path(place) / "study"
            (made / IMAGES).mkdir(parents=True)
            held = _write(made, plan, grid, chosen, tokens, tuple(notes), progress)
            try:
                if key is not None:  # first, so that a study never lies there with its key
                    shutil.move(made / KEY_FILE, key)
                made.rename(out)
            except OSError:
                if key is not None:
                    key.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise ExportError(
            f"the study can't be written ({error.strerror or error})",
            where=out,
            remedy="Choose a disk with space, that you may write.",
        ) from error
    return open_study(out), held


def _refuse_shared(shared: Sequence[Shared]) -> None:
    if shared:
        raise SharedPatientError(shared, remedy="Take them out of one folder: a reader could know the image again.")


def _matched(sides: Sequence[Sequence[ChosenPicture]], plan: StudyPlan) -> tuple[Grid, tuple[str, ...]]:
    """The common grid, and its notes; refuses what a reader could tell them by."""
    marked = [[one.place is not None for one in side] for side in sides]
    if plan.crop is not None and any(any(side) for side in marked) and not all(all(side) for side in marked):
        raise StudyError(
            "lesions are marked in some of the images only, so crops around them would tell real from synthetic",
            remedy="Give folders with marked lesions on both sides, or leave --crop out.",
        )
    hu = any(one.facts.kind == "CT" for side in sides for one in side)
    if plan.window is not None and not hu:
        raise StudyError(
            "images without HU are all shown over their own range of grey", remedy="Leave --window out; it is for CT."
        )
    # black and white of images without HU are percentiles here: their windows and bits don't matter
    facts = [
        [
            replace(one.facts, size=plan.crop or one.facts.size, fills=1.0, window=one.facts.window if hu else None)
            for one in side
        ]
        for side in sides
    ]
    try:
        return common_grid(*facts, window=plan.window, resample=False)
    except UnlikeScaleError as error:
        remedy = "Give images of one size and scale, or cut them with --crop: resampling could be seen."
        raise StudyError(error.what, where=error.where, remedy=remedy) from error
    except SettingsError as error:
        raise StudyError(error.what, where=error.where, remedy=error.remedy) from error


def _size_note(sides: Sequence[Sequence[ChosenPicture]]) -> list[str]:
    known = [[one.size_mm for one in side if one.size_mm is not None] for side in sides]
    if not all(known):
        return []
    first, second = (float(np.median(side)) for side in known)
    if max(first, second) <= 1.25 * min(first, second):
        return []
    return [f"lesions differ in size: median {first:.1f} mm real, {second:.1f} mm synthetic; size alone may tell them"]


# -- on disk -----------------------------------------------------------------------------------------------------------
def _write(
    made: Path,
    plan: StudyPlan,
    grid: Grid,
    chosen: Sequence[ChosenPicture],
    tokens: Sequence[str],
    notes: tuple[str, ...],
    progress: Progress,
) -> Key:
    hu = grid.kind == "CT"
    levels = HIGHEST + 1
    if not hu:
        levels = min(levels, *(one.levels for one in chosen))
        if levels < FEWEST_LEVELS:
            raise StudyError(
                f"an image has {levels} grey levels only, and all would be brought to that",
                remedy="Take out pictures that are no radiographs (masks, drawings).",
            )
        notes = (*notes, f"all images were brought to {levels} grey levels, as many as the coarsest of them has")
    jitter = np.random.default_rng([plan.seed, 0])
    hashes: dict[str, str] = {}
    for index in np.argsort(tokens):  # the order of writing tells nothing
        one = chosen[index]
        progress(len(hashes), len(chosen), "writing the images")
        pixels = study_values(one.image(), levels)
        if plan.crop is not None:
            reach = np.array(plan.crop) / 16
            centre = np.array(one.place or np.array(pixels.shape) / 2) + jitter.uniform(-reach, reach)
            pixels = cut_out(pixels, (float(centre[0]), float(centre[1])), plan.crop)
        content = packed(pixels)
        image_path(made, tokens[index]).write_bytes(content)
        hashes[tokens[index]] = hashlib.sha256(content).hexdigest()
    key = Key(
        seed=plan.seed,
        images={
            token: KeyEntry(synthetic=one.synthetic, source=one.facts.name, size_mm=one.size_mm)
            for token, one in zip(tokens, chosen, strict=True)
        },
        notes=notes,
    )
    (made / KEY_FILE).touch(mode=0o600)
    (made / KEY_FILE).write_bytes(document_bytes(key))
    rows, columns = plan.crop or grid.size
    window = plan.window or chosen[0].facts.window
    radius = _ring_radius(chosen, plan)
    design = Design(
        task=plan.task,
        rows=rows,
        columns=columns,
        pixel_aspect=_aspect(chosen),
        units="HU" if hu else "stored",
        offset=LOWEST_HU if hu else 0,
        window=(window.center, window.width) if hu and window else (HIGHEST / 2, float(HIGHEST)),
        mark_radius=radius,
        readers=_trials(chosen, tokens, plan, radius),
        images=hashes,
        key_sha256=hashlib.sha256(document_bytes(key)).hexdigest(),
    )
    (made / DESIGN_FILE).write_bytes(document_bytes(design))
    progress(len(chosen), len(chosen), "the study is written")
    return key


def _ring_radius(chosen: Sequence[ChosenPicture], plan: StudyPlan) -> float | None:
    """One radius for all, in pixels; None where no ring is shown."""
    known = [one.diameter_px for one in chosen if one.diameter_px is not None]
    everywhere = len(known) == len(chosen)
    if plan.ring and not everywhere:
        raise StudyError("a ring needs a marked lesion in every image, real and synthetic", remedy="Leave --ring out.")
    wanted = everywhere and plan.crop is None and plan.ring is not False
    return round(0.75 * max(known) + RING_MARGIN, 1) if wanted else None


def _aspect(chosen: Sequence[ChosenPicture]) -> float:
    """Height over width of a pixel, where all tell one and the same within 2 %; else 1."""
    told = {one.facts.spacing_mm for one in chosen}
    ratios = [1.0 if spacing is None else spacing[0] / spacing[1] for spacing in told]
    return round(float(np.median(ratios)), 4) if max(ratios) <= 1.02 * min(ratios) else 1.0


def _trials(
    chosen: Sequence[ChosenPicture], tokens: Sequence[str], plan: StudyPlan, radius: float | None
) -> dict[str, tuple[tuple[Shown, ...], ...]]:
    """Each reader's trials: the same sets for all, in an order of their own, the synthetic one at each position as
    often as at the others; rings are moved a little for each.
    """
    real = [index for index, one in enumerate(chosen) if not one.synthetic]
    fake = [index for index, one in enumerate(chosen) if one.synthetic]
    size = ALTERNATIVES[plan.task]
    sets = [[index] for index in (*real, *fake)]
    if size > 1:
        sets = [[made, *real[k * (size - 1) : (k + 1) * (size - 1)]] for k, made in enumerate(fake)]
    result = {}
    for number, reader in enumerate(plan.readers, start=1):
        rng = np.random.default_rng([plan.seed, number])
        positions = rng.permutation(np.arange(len(sets)) % size)
        trials = []
        for k, position in zip(rng.permutation(len(sets)), positions, strict=True):
            others = [sets[k][1:][j] for j in rng.permutation(size - 1)]
            shown = [*others[:position], sets[k][0], *others[position:]]
            trials.append(tuple(Shown(token=tokens[i], mark=_mark(chosen[i], radius, rng)) for i in shown))
        result[reader] = tuple(trials)
    return result


def _mark(one: ChosenPicture, radius: float | None, rng: np.random.Generator) -> tuple[float, float] | None:
    if radius is None or one.place is None:
        return None
    row, column = np.array(one.place) + rng.uniform(-radius / 4, radius / 4, 2)
    return round(float(row), 1), round(float(column), 1)
