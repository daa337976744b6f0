"""What each kind of job does: parameters and an image in, bytes out. No path of a request is ever opened."""

from __future__ import annotations

import dataclasses
import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from HiResMedSynthLib.case import Case, CaseSettings
from HiResMedSynthLib.case_file import ARRAYS_FILE, CASE_FILE, case_bytes, read_case
from HiResMedSynthLib.compose import Composition, compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import HeaderFacts, MedicalImage, Window
from HiResMedSynthLib.placement.domain import Domain
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.service.jobs import Result, Step
from HiResMedSynthLib.service.protocol import ARRAYS_TYPE, ZIP_TYPE, ImageHeader, pack_arrays
from HiResMedSynthLib.service.store import Store

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What a task gets."""

    image: MedicalImage | None
    image_name: str | None
    parameters: dict[str, Any]
    store: Store

    def background(self) -> MedicalImage:
        """The image; refuses a job without one."""
        if self.image is None:
            raise SettingsError("this job needs an image", remedy="Choose a background first.")
        return self.image

    def ground(self, domain: Domain | None, margins: Margins) -> Ground:
        """The background prepared for drawing, kept for the next job."""
        image = self.background()
        name = f"ground {self.image_name} {domain} {margins}"
        # labels, forbidden mask, heatmap and its sampler: about 20 bytes a voxel
        return self.store.get_or_make(  # type: ignore[no-any-return]
            name, lambda: (prepare_ground(image, domain=domain, margins=margins), 20 * image.pixels.size)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhereParameters:
    """Parameters of danger, prior and candidates."""

    domain: Domain | None = None
    margins: Margins = dataclasses.field(default_factory=Margins)
    allow: tuple[str, ...] = ()
    count: int = 20
    seed: int = 0
    min_distance_mm: float = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposeParameters:
    """Parameters of compose."""

    settings: CaseSettings
    seed: int = 0
    source_slice: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportParameters:
    """Parameters of export: a case.json, and the name of the blob with its lesions.safetensors."""

    case: dict[str, Any]
    lesions: str
    changed_only: bool = False
    pair: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleParameters:
    """Parameters of sample_lesion: an entry of the bank, or a type and diameter to choose by."""

    entry: str | None = None
    type: str = "any"
    diameter_mm: float = 10.0
    seed: int = 0


def image_from(pixels: np.ndarray, header: dict[str, Any]) -> MedicalImage:
    """The image that a client sent.

    Raises:
        HiResMedSynthError: header or pixels can't be.
    """
    told = parameters_of(ImageHeader, header)
    facts = parameters_of(HeaderFacts, told.facts)
    window = None if told.window is None else Window(center=told.window[0], width=told.window[1])
    fields = {f.name: getattr(told, f.name) for f in dataclasses.fields(told)}
    fields |= {"facts": facts, "window": window}
    try:
        fields["positions_lps_mm"] = np.array(told.positions_lps_mm, dtype=np.float64)
        fields["directions_lps"] = np.array(told.directions_lps, dtype=np.float64)
    except ValueError as error:
        raise SettingsError("the positions or directions are no table", remedy="Send the image anew.") from error
    return MedicalImage(pixels=pixels, **fields)


def parameters_of(kind: type[T], document: Any) -> T:
    """A parameter object from JSON; refuses unknown names and values that can't be."""
    if not isinstance(document, dict):
        raise SettingsError("the parameters are no object", remedy="Send a JSON object.")
    known = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(str(name)[:40] for name in set(document) - known)
    if unknown:
        raise SettingsError(
            f"there is no parameter {', '.join(unknown[:5])}", remedy=f"Known: {', '.join(sorted(known))}."
        )
    try:
        return TypeAdapter(kind).validate_python(document)
    except HiResMedSynthError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part)[:40] for part in first["loc"])
        raise SettingsError(f"{place}: {first['msg'].lower()}", remedy="Correct the parameter.") from error


def inspect(work: Work, step: Step) -> Result:
    """What is understood of the image."""
    from HiResMedSynthLib.inspect import describe, facts_of

    step.progress(0, 1, "looking at the image")
    image = work.background()
    return _arrays({}, {"facts": facts_of(image), "text": describe(image)})


def danger(work: Work, step: Step) -> Result:
    """The danger map's labels and names."""
    wanted = parameters_of(WhereParameters, work.parameters)
    step.progress(0, 1, "looking where lesions must not go")
    ground = work.ground(wanted.domain, wanted.margins)
    found = ground.danger_map
    names = {str(label): name for label, name in found.names.items()}
    return _arrays({"labels": found.labels}, {"names": names, "method": found.method, "domain": ground.domain})


def prior(work: Work, step: Step) -> Result:
    """The heatmap of likely places."""
    from HiResMedSynthLib.placement.location import heatmap

    wanted = parameters_of(WhereParameters, work.parameters)
    step.progress(0, 1, "looking where lesions are likely")
    ground = work.ground(wanted.domain, wanted.margins)
    heat = heatmap(ground.image, ground.danger_map, domain=ground.domain, allow=wanted.allow)
    return _arrays({"heat": heat}, {"domain": ground.domain})


def candidates(work: Work, step: Step) -> Result:
    """Places drawn from the heatmap."""
    from HiResMedSynthLib.placement.candidates import candidates as draw
    from HiResMedSynthLib.placement.location import heatmap

    wanted = parameters_of(WhereParameters, work.parameters)
    step.progress(0, 1, "drawing places")
    ground = work.ground(wanted.domain, wanted.margins)
    heat = heatmap(ground.image, ground.danger_map, domain=ground.domain, allow=wanted.allow)
    places = draw(
        heat,
        count=min(max(wanted.count, 1), 1000),
        rng=np.random.default_rng(wanted.seed),
        spacing_mm=ground.image.spacing_mm,
        min_distance_mm=wanted.min_distance_mm,
    )
    return _arrays({"places": np.array(places, dtype=np.int64).reshape(-1, 3)}, {"domain": ground.domain})


def sample_lesion(work: Work, step: Step) -> Result:
    """A lesion of the bank: HU, matte, voxel size and card."""
    from HiResMedSynthLib.lesion.bank import load_bank

    wanted = parameters_of(SampleParameters, work.parameters)
    step.progress(0, 1, "taking a lesion from the bank")
    bank, rng = load_bank(), np.random.default_rng(wanted.seed)
    name = wanted.entry or bank.choose(types=bank.types_for(wanted.type), diameter_mm=wanted.diameter_mm, rng=rng)
    lesion = bank.lesion(name)
    document = {"card": dataclasses.asdict(lesion.card), "voxel_mm": lesion.voxel_mm}
    return _arrays({"intensity_hu": lesion.intensity_hu, "alpha": lesion.alpha}, document)


def compose_job(work: Work, step: Step) -> Result:
    """Draws a case and composes it: the changed patches, the case and its lesions."""
    wanted = parameters_of(ComposeParameters, work.parameters)
    image = work.background()
    ground = work.ground(wanted.settings.domain, wanted.settings.margins)
    case = draw_case(
        image, wanted.settings, wanted.seed, ground=ground, source_slice=wanted.source_slice, progress=step.progress
    )
    return _composed(compose(image, case))


def _composed(composition: Composition) -> Result:
    text, packed = case_bytes(composition.case)
    arrays: dict[str, Any] = {"lesions": np.frombuffer(packed, dtype=np.uint8)}
    for lesion in composition.lesions:
        arrays[f"{lesion.number}.pixels"] = composition.image.pixels[lesion.region]
        arrays[f"{lesion.number}.alpha"] = lesion.alpha
    patches = {str(lesion.number): list(lesion.corner) for lesion in composition.lesions}
    boxes = [dataclasses.asdict(box) for box in composition.boxes]
    return _arrays(arrays, {"case": json.loads(text), "corners": patches, "boxes": boxes})


def export_job(work: Work, step: Step) -> Result:
    """The whole export as a zip."""
    from HiResMedSynthLib.export.folder import export

    wanted = parameters_of(ExportParameters, work.parameters)
    lesions = work.store.get(f"blob {wanted.lesions}")
    if not isinstance(lesions, bytes):
        raise SettingsError("the backend doesn't hold the drawn lesions of this case", remedy="Send them first.")
    with tempfile.TemporaryDirectory(prefix="hiresmedsynth-") as place:
        folder = Path(place)
        (folder / CASE_FILE).write_text(json.dumps(wanted.case), encoding="utf-8")
        (folder / ARRAYS_FILE).write_bytes(lesions)
        case: Case = read_case(folder / CASE_FILE)
        out = folder / "export"
        exported = export(
            compose(work.background(), case),
            out,
            changed_only=wanted.changed_only,
            pair=wanted.pair,
            progress=step.progress,
        )
        for note in exported.notes:
            step.note(note)
        return Result(_zipped(out), ZIP_TYPE)


def _zipped(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(folder).as_posix())
    return stream.getvalue()


def not_installed(_work: Work, _step: Step) -> Result:
    """For kinds whose model or code comes with a later release."""
    raise SettingsError(
        "the model that this needs is not installed", remedy="It comes with a later release; see CHANGELOG.md."
    )


def _arrays(arrays: dict[str, Any], document: Any) -> Result:
    return Result(pack_arrays(arrays, document), ARRAYS_TYPE)


TASKS: dict[str, Callable[[Work, Step], Result]] = {
    "inspect": inspect,
    "danger": danger,
    "prior": prior,
    "candidates": candidates,
    "sample_lesion": sample_lesion,
    "compose": compose_job,
    "export": export_job,
    "train_lesion": not_installed,
    "generate": not_installed,
    "reconstruct": not_installed,
    "save_annotations": not_installed,
    "load_annotations": not_installed,
}
