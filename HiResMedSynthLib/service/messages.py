"""Messages of the service as objects: images and parameters that came in, results that go out."""

from __future__ import annotations

import dataclasses
import io
import math
import zipfile
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.image import HeaderFacts, MedicalImage, Photometric, SpacingSource, Window
from HiResMedSynthLib.service.dicom_tags import image_from_tags
from HiResMedSynthLib.service.jobs import Result
from HiResMedSynthLib.service.protocol import ARRAYS_TYPE, ZIP_TYPE, ImageHeader, pack_arrays

T = TypeVar("T")
Seed = Annotated[int, Field(ge=0, lt=2**63)]
LengthMm = Annotated[float, Field(ge=0, le=10_000, allow_inf_nan=False)]


def image_from(pixels: np.ndarray, header: dict[str, Any]) -> MedicalImage:
    """The image that a client sent.

    Raises:
        HiResMedSynthError: header or pixels can't be.
    """
    told = parameters_of(ImageHeader, header)
    sound = (
        told.units in ("HU", "stored")
        and told.photometric in get_args(Photometric)
        and told.spacing_source in get_args(SpacingSource)
        and (told.bits_stored is None or 1 <= told.bits_stored <= 32)
        and all(map(math.isfinite, (*told.rescale, told.padding_value or 0.0)))
        and told.rescale[0] != 0
    )
    if not sound:
        raise SettingsError("the image's header holds a value that can't be", remedy="Send the image anew.")
    facts = parameters_of(HeaderFacts, told.facts)
    window = None if told.window is None else Window(center=told.window[0], width=told.window[1])
    fields = {f.name: getattr(told, f.name) for f in dataclasses.fields(told) if f.name != "tags"}
    fields |= {"facts": facts, "window": window}
    try:
        fields["positions_lps_mm"] = np.array(told.positions_lps_mm, dtype=np.float64)
        fields["directions_lps"] = np.array(told.directions_lps, dtype=np.float64)
    except ValueError as error:
        raise SettingsError("the positions or directions are no table", remedy="Send the image anew.") from error
    if not told.tags:
        return MedicalImage(pixels=pixels, **fields)
    as_held = pixels.astype(np.float32) if pixels.dtype == np.float64 else pixels
    return image_from_tags(pixels, told.tags, MedicalImage(pixels=as_held, **fields))


def header_of(image: MedicalImage) -> ImageHeader:
    """The header of an image as it travels; the inverse of `image_from`."""
    names = {f.name for f in dataclasses.fields(ImageHeader)} - {"tags"}
    values = {name: getattr(image, name) for name in names}
    values["positions_lps_mm"] = np.asarray(image.positions_lps_mm).tolist()
    values["directions_lps"] = image.directions_lps.tolist()
    values["window"] = None if image.window is None else (image.window.center, image.window.width)
    values["facts"] = dataclasses.asdict(image.facts)
    return ImageHeader(**values)


def parameters_of(kind: type[T], document: Any) -> T:
    """A parameter object from JSON; refuses unknown names and values that can't be."""
    if not isinstance(document, dict):
        raise SettingsError("the parameters are no object", remedy="Send a JSON object.")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(str(name)[:40] for name in set(document) - known)
    if unknown:
        raise SettingsError(
            f"there is no parameter {', '.join(unknown[:5])}", remedy=f"Use one of: {', '.join(sorted(known))}."
        )
    try:
        return TypeAdapter(kind).validate_python(document)
    except HiResMedSynthError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise SettingsError(f"{place}: {first['msg'].lower()}", remedy="Correct the parameter.") from error


def arrays_result(arrays: dict[str, Any], document: Any) -> Result:
    """A job's result: arrays by name and a JSON document."""
    return Result(pack_arrays(arrays, document), ARRAYS_TYPE)


def zip_result(folder: Path) -> Result:
    """A job's result: all files of a folder as a zip."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return Result(stream.getvalue(), ZIP_TYPE)
