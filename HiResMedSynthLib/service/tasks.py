"""What each kind of job does: parameters and an image in, bytes out. No path of a request is ever opened."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from HiResMedSynthLib.case import Case, CaseSettings
from HiResMedSynthLib.case_file import ARRAYS_FILE, CASE_FILE, case_bytes, read_case
from HiResMedSynthLib.choices import Domain, RequestType, Zone
from HiResMedSynthLib.compose import boxes_of, compose, compose_patches
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import ForbiddenPlaceError, HiResMedSynthError, SettingsError
from HiResMedSynthLib.export.patient import StudyLabels
from HiResMedSynthLib.export.segmentation import SegKind
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger_map import MAY_TOUCH
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.service import annotation_tasks, background_tasks, lesion_tasks, model_tasks
from HiResMedSynthLib.service.dicom_tags import is_left_out
from HiResMedSynthLib.service.job_folder import job_folder
from HiResMedSynthLib.service.jobs import Result, Step
from HiResMedSynthLib.service.messages import LengthMm, Seed, arrays_result, parameters_of, zip_result
from HiResMedSynthLib.service.store import Store

HALF_LOOKED = 12  # bytes a voxel: labels, and of a CT that is looked at in part its regions


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

    def ground(
        self,
        domain: Domain | None,
        margins: Margins,
        placement: PlacementMethod,
        step: Step,
        *,
        by_slice: bool = False,
    ) -> Ground:
        """The background prepared for drawing, kept for the next job; `by_slice`: slices of a CT when needed."""
        image = self.background()
        device = "cpu" if step.device == "auto" else step.device  # places are the same with and without a GPU
        of = f"{self.image_name} {domain} {margins} {device}"
        mask_name = f"danger {of} {placement.danger}"

        def progress(done: int, total: int, what: str) -> None:
            step.progress(done, total, f"{what}, slice {done} of {total}" if total > 1 else what)

        def looked() -> tuple[Ground, int]:
            found = prepare_ground(
                image, domain=domain, margins=margins, placement=placement, by_slice=True, device=device
            )
            return found, HALF_LOOKED * image.pixels.size

        def made() -> tuple[Ground, int]:
            # another prior or temperature leaves the danger map as it is: a network need not look at all slices again
            mask: Ground = self.store.get_or_make(mask_name, looked)
            # labels, forbidden mask, heatmap and its sampler: about 20 bytes a voxel
            return dataclasses.replace(mask, placement=placement), 20 * image.pixels.size

        ground: Ground = self.store.get_or_make(f"ground {of} {placement}", made)
        if not by_slice:
            ground.look_everywhere(progress)
            if self.store.get(mask_name) is not None:  # nothing but its labels is left; heatmaps are the ground's
                self.store.put(mask_name, dataclasses.replace(ground), 2 * image.pixels.size)
        return ground


@dataclasses.dataclass(frozen=True, kw_only=True)
class WhereParameters:
    """Parameters of danger, prior and candidates; `percent`: the heatmap as uint8, in percent of its highest value;
    `diameter_mm`: candidates keep this lesion's reach from what is forbidden, where such places exist; `quotas`: how
    many of them a zone gets at least.
    """

    domain: Domain | None = None
    margins: Margins = dataclasses.field(default_factory=Margins)
    lesion_type: RequestType = "any"
    count: int = 20
    seed: Seed = 0
    min_distance_mm: LengthMm = 10.0
    percent: bool = False
    diameter_mm: LengthMm = 0.0
    placement: PlacementMethod = dataclasses.field(default_factory=PlacementMethod)
    quotas: dict[Zone, Annotated[int, Field(ge=1, le=1000)]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComposeParameters:
    """Parameters of compose.

    `leave_out_forbidden`: compose what can be, and say of the others why not and where the nearest place is.
    `own_lesions`: blob with lesions of the user's own (bank format), beside the shipped ones.
    """

    settings: CaseSettings
    seed: int = 0
    source_slice: int | None = None
    leave_out_forbidden: bool = False
    own_lesions: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportParameters:
    """Parameters of export: a case.json, the name of the blob with its lesions.safetensors, and what to write."""

    case: dict[str, Any]
    lesions: str
    changed_only: bool = False
    pair: bool = False
    seg: SegKind = "binary"
    labels: StudyLabels = dataclasses.field(default_factory=StudyLabels)


def inspect(work: Work, step: Step) -> Result:
    """What is understood of the image."""
    from HiResMedSynthLib.inspect import describe, facts_of

    step.progress(0, 1, "looking at the image")
    image = work.background()
    return arrays_result({}, {"facts": facts_of(image), "text": describe(image)})


def danger(work: Work, step: Step) -> Result:
    """The danger map's labels and names, and why they may be doubtful here."""
    wanted = parameters_of(WhereParameters, work.parameters)
    step.progress(0, 1, "looking where lesions must not go")
    ground = work.ground(wanted.domain, wanted.margins, wanted.placement, step)
    found = ground.danger_map
    names = {str(label): name for label, name in found.names.items()}
    told = {"names": names, "method": found.method, "domain": ground.domain, "warnings": ground.view_warnings}
    return arrays_result({"labels": found.labels}, told)


def prior(work: Work, step: Step) -> Result:
    """The heatmap of likely places."""
    wanted = parameters_of(WhereParameters, work.parameters)
    step.progress(0, 1, "looking where lesions are likely")
    ground = work.ground(wanted.domain, wanted.margins, wanted.placement, step)
    heat = ground.heat(MAY_TOUCH.get(wanted.lesion_type, ()))
    if wanted.percent:
        heat = np.round(100 * heat / max(float(heat.max()), 1e-30)).astype(np.uint8)
    return arrays_result({"heat": heat}, {"domain": ground.domain, "method": ground.method})


def candidates(work: Work, step: Step) -> Result:
    """Places drawn from the heatmap."""
    from HiResMedSynthLib.propose import LARGEST_MM, propose

    wanted = parameters_of(WhereParameters, work.parameters)
    step.progress(0, 1, "drawing places")
    ground = work.ground(wanted.domain, wanted.margins, wanted.placement, step)
    found = propose(
        ground,
        count=min(max(wanted.count, 1), 1000),
        seed=wanted.seed,
        quotas=wanted.quotas,
        diameter_mm=min(wanted.diameter_mm, LARGEST_MM),
        min_distance_mm=min(wanted.min_distance_mm, LARGEST_MM),
        lesion_type=wanted.lesion_type,
    )
    places = np.array([one.place for one in found], dtype=np.int64).reshape(-1, 3)
    return arrays_result({"places": places}, {"domain": ground.domain})


def compose_job(work: Work, step: Step) -> Result:
    """Draws a case and composes it: the changed patches, the case and its lesions.

    `requests` of the result: for each lesion the index of its request; `refused`: what was left out, and why.
    """
    wanted = parameters_of(ComposeParameters, work.parameters)
    image, settings = work.background(), wanted.settings
    ground = work.ground(settings.domain, settings.margins, settings.placement, step, by_slice=True)
    bank = lesion_tasks.bank_with(work.store, wanted.own_lesions)
    kept, refused = list(range(len(settings.requests))), []
    also = {"stored_values": image.units == "stored" and not any(map(is_left_out, image.oddities))}
    while kept:
        tried = dataclasses.replace(settings, requests=tuple(settings.requests[k] for k in kept))
        try:
            case = draw_case(
                image,
                tried,
                wanted.seed,
                bank=bank,
                ground=ground,
                source_slice=wanted.source_slice,
                progress=step.progress,
            )
        except HiResMedSynthError as error:
            if not wanted.leave_out_forbidden or error.lesion is None:
                raise
            nearest = error.nearest if isinstance(error, ForbiddenPlaceError) else None
            index = kept.pop(error.lesion - 1)
            refused.append({"request": index, "what": error.what, "remedy": error.remedy, "nearest": nearest})
        else:
            return _composed(case, compose_patches(image, case), {"requests": kept, "refused": refused, **also})
    return arrays_result({}, {"case": None, "corners": {}, "boxes": [], "requests": [], "refused": refused, **also})


def _composed(case: Case, patches: dict[int, Any], also: dict[str, Any]) -> Result:
    text, packed = case_bytes(case)
    arrays: dict[str, Any] = {"lesions": np.frombuffer(packed, dtype=np.uint8)}
    for lesion in case.lesions:
        arrays[f"{lesion.number}.pixels"] = patches[lesion.number]
        arrays[f"{lesion.number}.alpha"] = lesion.alpha
    corners = {str(lesion.number): list(lesion.corner) for lesion in case.lesions}
    boxes = [dataclasses.asdict(box) for box in boxes_of(case)]
    return arrays_result(arrays, {"case": json.loads(text), "corners": corners, "boxes": boxes, **also})


def export_job(work: Work, step: Step) -> Result:
    """The whole export as a zip."""
    from HiResMedSynthLib.export.folder import export

    wanted = parameters_of(ExportParameters, work.parameters)
    lesions = work.store.get(f"blob {wanted.lesions}")
    if not isinstance(lesions, bytes):
        raise SettingsError("the backend doesn't hold the drawn lesions of this case", remedy="Send them first.")
    with job_folder() as folder:
        (folder / CASE_FILE).write_text(json.dumps(wanted.case), encoding="utf-8")
        (folder / ARRAYS_FILE).write_bytes(lesions)
        case: Case = read_case(folder / CASE_FILE)
        out = folder / "export"
        exported = export(
            compose(work.background(), case),
            out,
            changed_only=wanted.changed_only,
            pair=wanted.pair,
            seg=wanted.seg,
            labels=wanted.labels,
            progress=step.progress,
        )
        for note in (*exported.warnings, *exported.notes):
            step.note(note)
        return zip_result(out)


TASKS: dict[str, Callable[[Work, Step], Result]] = {
    "inspect": inspect,
    "danger": danger,
    "prior": prior,
    "candidates": candidates,
    "bank": lesion_tasks.bank,
    "compose": compose_job,
    "export": export_job,
    "cut_lesion": lesion_tasks.cut_lesion,
    "generate": background_tasks.generate,
    "reconstruct": background_tasks.reconstruct,
    "save_annotations": annotation_tasks.save_annotations,
    "load_annotations": annotation_tasks.load_annotations,
    "models": model_tasks.models,
}
