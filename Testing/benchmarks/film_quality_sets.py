"""The pictures that a background model is judged by: real ones, those rebuilt from their codes, and samples.

All are [row, column] in 0..1 (bright = dense), at the model's full size. Made ones are kept as 16-bit PNGs in a folder
named by the model's hash, so that they are made once and can be looked at; a hash in their own names is of the code
that made them and, where there is one, of the picture that was rebuilt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from HiResMedSynthLib import flow
from HiResMedSynthLib.background import make
from HiResMedSynthLib.background.cascade import load_cascade
from HiResMedSynthLib.background.domain_values import DomainValues, image_of, values_of
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.image import MedicalImage
from Training.film_data import FilmSet

Unit = NDArray[np.float32]
LEVELS = 65535
MAKERS = [*sorted(Path(make.__file__).parent.glob("*.py")), Path(flow.__file__)]
CODE = b"".join(file.read_bytes() for file in MAKERS)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pictures:
    """One kind of pictures, `mask` True where a picture shows something (None: everywhere); `patients` of each."""

    name: str
    units: tuple[Unit, ...]
    masks: tuple[NDArray[np.bool_] | None, ...]
    patients: tuple[str, ...]
    labels: tuple[str, ...]
    spacing_mm: float


def model_of(path: Path) -> BackgroundModel:
    """The cascade in a file, which need not be in the model store.

    Raises:
        ReadError: it is none.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return BackgroundModel(name=path.stem, cascade=load_cascade(path), sha256=digest)


def real_pictures(films: FilmSet, *, held_out: bool, most: int | None = None) -> Pictures:
    """The films of one side inside their fields, evenly chosen where there are more than `most`."""
    side = films.side(held_out=held_out)
    count = len(side) if most is None else min(most, len(side))
    chosen = [side[k * len(side) // count] for k in range(count)]
    units, masks = [], []
    for index in chosen:
        top, left, rows, columns = films.films[index].field
        part = np.s_[top : top + rows, left : left + columns]
        units.append((films.pixels[index][part] + 1) / 2)
        masks.append(None if films.inside is None else films.inside[index][part])
    return Pictures(
        name="held out" if held_out else "trained on",
        units=tuple(units),
        masks=tuple(masks),
        patients=tuple(films.films[i].patient for i in chosen),
        labels=tuple(Path(films.films[i].name).stem for i in chosen),
        spacing_mm=films.spacing_mm,
    )


def rebuilt_pictures(model: BackgroundModel, real: Pictures, folder: Path, say: Callable[[str], None]) -> Pictures:
    """Each real picture encoded and drawn again from its codes, as `hiresmedsynth reconstruct` does."""
    values, units = values_of(model.cascade.domain), []
    for number, (unit, label) in enumerate(zip(real.units, real.labels, strict=True)):

        def made(unit: Unit = unit) -> Unit:
            image = as_image(unit, values, real.spacing_mm)
            return _unit_of(make.reconstruct(model, image).image, values)

        say(f"rebuilt, {real.name}: {number + 1} of {len(real.units)}")
        units.append(_kept(folder, f"rebuilt-{label}", made, of=unit.tobytes()))
    return Pictures(
        name=f"rebuilt, {real.name}",
        units=tuple(units),
        masks=real.masks,
        patients=real.patients,
        labels=real.labels,
        spacing_mm=real.spacing_mm,
    )


def sampled_pictures(
    model: BackgroundModel, seeds: Sequence[int], folder: Path, say: Callable[[str], None], *, size: int | None = None
) -> Pictures:
    """New pictures, none drawn again for being a near copy; films alternate between F and M. `size`: as `generate`."""
    values, units = values_of(model.cascade.domain), []
    for number, seed in enumerate(seeds):
        sex = None if values.hounsfield else "FM"[seed % 2]

        def made(seed: int = seed, sex: str | None = sex) -> Unit:
            return _unit_of(make.generate(model, seed=seed, sex=sex, size=size).image, values)

        say(f"sampled: {number + 1} of {len(seeds)}")
        units.append(_kept(folder, f"sample{'' if size is None else f'-{size}'}-{seed:04d}", made))
    side = size or model.cascade.side
    return Pictures(
        name="sampled",
        units=tuple(units),
        masks=(None,) * len(units),
        patients=tuple(f"seed {seed}" for seed in seeds),
        labels=tuple(f"seed {seed}" for seed in seeds),
        spacing_mm=model.cascade.spacing_mm * model.cascade.side / side,
    )


def as_image(unit: Unit, values: DomainValues, spacing_mm: float) -> MedicalImage:
    """The picture as an image of its domain; what lies outside 0..1 is cut off."""
    return image_of(values, 2 * np.clip(unit, 0, 1) - 1, spacing_mm=spacing_mm)


def _unit_of(image: MedicalImage, values: DomainValues) -> Unit:
    stored = image.pixels[0].astype(np.float32)
    return np.asarray(np.clip((stored - values.low) / (values.high - values.low), 0, 1), dtype=np.float32)


def _kept(folder: Path, name: str, made: Callable[[], Unit], *, of: bytes = b"") -> Unit:
    file = folder / f"{name}-{hashlib.sha256(CODE + of).hexdigest()[:12]}.png"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        grey = np.rint(made() * LEVELS).astype(np.uint16)
        Image.fromarray(grey).save(part, format="PNG", compress_level=1)
        part.rename(file)
    with Image.open(file) as picture:
        return np.asarray(picture, dtype=np.float32) / np.float32(LEVELS)
