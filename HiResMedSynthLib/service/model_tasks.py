"""The job models: what is there to find places, to make lesions and backgrounds with. No path, nothing of a patient."""

from __future__ import annotations

import dataclasses
from itertools import chain
from typing import TYPE_CHECKING, Any

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.find_model import KIND as BACKGROUND_KIND
from HiResMedSynthLib.background.find_model import domain_of
from HiResMedSynthLib.choices import DOMAINS, LESION_TYPES
from HiResMedSynthLib.lesion.trained import KIND as SINGAN_KIND
from HiResMedSynthLib.placement import method
from HiResMedSynthLib.placement.network import ENTRY
from HiResMedSynthLib.placement.network import KIND as PLACEMENT_KIND
from HiResMedSynthLib.service.jobs import Result, Step
from HiResMedSynthLib.service.messages import arrays_result, parameters_of
from HiResMedSynthLib.whole_tensors import header_entry

if TYPE_CHECKING:
    from HiResMedSynthLib.service.tasks import Work

TASKS_KNOWN = frozenset(chain(*method.DANGER_TASKS.values(), *method.PRIOR_TASKS.values()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelsParameters:
    """Parameters of models: there are none."""


def models(work: Work, step: Step) -> Result:
    """`models`: of each its name, kind and whether it is shipped, and what it is for: `task` of a placement model,
    `domain` of a background's, `type` of a lesion's. `best`: what "auto" means in each domain, danger mask and prior.

    A model's hash is checked when it is used, not here.
    """
    parameters_of(ModelsParameters, work.parameters)
    step.progress(0, 1, "looking which models are there")
    best = {
        "danger": _best(method.SHIPPED_DANGER, method.RULE),
        "prior": dict(method.BEST_PRIOR),
    }
    return arrays_result({}, {"models": [_told(model) for model in weights.models()], "best": best})


def _told(model: weights.Model) -> dict[str, Any]:
    kind = model.card.kind
    told: dict[str, Any] = {"name": model.card.name, "kind": kind, "shipped": model.shipped}
    if kind == PLACEMENT_KIND:
        task = (header_entry(model.path, ENTRY) or {}).get("task")
        told["task"] = task if isinstance(task, str) and task in TASKS_KNOWN else None
    elif kind == BACKGROUND_KIND:
        told["domain"] = domain_of(model.path)
    elif kind == SINGAN_KIND:
        lesion_type = model.card.details.get("type")
        told["type"] = lesion_type if lesion_type in LESION_TYPES else None
    return told


def _best(shipped: dict[Any, str], without: str) -> dict[str, str]:
    runs = method.can_run()
    return {domain: shipped.get(domain, without) if runs else without for domain in DOMAINS}
