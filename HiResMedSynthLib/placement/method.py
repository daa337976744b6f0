"""How places are found: by which danger mask and which prior, and how strictly the prior is followed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.choices import Domain
from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.image import MedicalImage

if TYPE_CHECKING:
    from HiResMedSynthLib.placement.network import PlacementNetwork

OF_FILMS = "location-film"  # a density of a site's own lesions
AUTO, RULE, DENSITY, DISTANCES = "auto", "rule", "density", "distances"
# what "auto" means: what measured best (docs/results); a network only where its engine is installed
SHIPPED_DANGER: dict[Domain, str] = {"lung-ct": "danger-ct", "cxr": "danger-film"}
BEST_PRIOR: dict[Domain, str] = {"lung-ct": DISTANCES, "cxr": DENSITY, "kub": DENSITY, "mr": DENSITY}
DANGER_TASKS: dict[Domain, tuple[str, ...]] = {
    "lung-ct": ("danger-ct",), "cxr": ("danger-film",), "kub": ("danger-film",), "mr": (),
}  # fmt: skip
PRIOR_TASKS: dict[Domain, tuple[str, ...]] = {
    "lung-ct": ("location-ct", "yolo-ct"), "cxr": (OF_FILMS,), "kub": (), "mr": (),
}  # fmt: skip
FORBIDDEN, LIKELY = "what is forbidden", "where lesions are likely"
USES = {  # what a model tells, by its task
    "danger-ct": f"{FORBIDDEN} on a chest CT", "danger-film": f"{FORBIDDEN} on a film",
    "location-ct": f"{LIKELY} on a chest CT", "yolo-ct": f"{LIKELY} on a chest CT",
    OF_FILMS: f"{LIKELY} on a chest film",
}  # fmt: skip
PICTURES: dict[Domain, str] = {
    "lung-ct": "a chest CT", "cxr": "a chest film", "kub": "an abdominal film", "mr": "an MR",
}  # fmt: skip
ENGINES = ("onnxruntime", "segmentation_models_pytorch")


@dataclass(frozen=True, kw_only=True)
class LocalFactor:
    """What the neighbourhood of a place says, beside the density of real lesions.

    Args:
        name: for the record.
        heat: image and lungs `[slice, row, column]` -> float32 of that shape, mean 1 over the lungs of a slice.
    """

    name: str
    heat: Callable[[MedicalImage, NDArray[np.bool_]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class PlacementMethod:
    """How places are found.

    Args:
        danger: "auto" (the best shipped way), "rule", or the name of a model.
        prior: "auto", "density" (where lesions occurred, without looking at the picture), "distances" (the density
            times how often nodules lie that far from the lung's border and from vessels), or the name of a model.
        temperature: 1 draws places as likely as the prior says, more evens it out, less keeps to its peaks.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    danger: str = AUTO
    prior: str = AUTO
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and 0.05 <= self.temperature <= 100):
            raise SettingsError(
                f"a temperature of {self.temperature} can't be", remedy="Give 0.05 to 100; 1 is as measured."
            )

    def danger_network(self, domain: Domain, *, device: str = "cpu") -> PlacementNetwork | None:
        """The network that names what is forbidden, on that device; None: the rule does.

        Raises:
            ModelError: there is no such model.
            SettingsError: it is for other pictures.
        """
        shipped = SHIPPED_DANGER.get(domain)
        if self.danger == RULE or (self.danger == AUTO and (shipped is None or not can_run())):
            return None
        from HiResMedSynthLib.placement.network import load_network, stored_task

        chosen = shipped if self.danger == AUTO and shipped is not None else self.danger
        task = stored_task(chosen, words=(AUTO, RULE))
        _refuse_other_task(chosen, task, DANGER_TASKS[domain], f"{FORBIDDEN} on {PICTURES[domain]}", without=RULE)
        return load_network(chosen, device=device)

    def fallback(self, domain: Domain) -> str:
        """What the record should say where "auto" can't mean the best way on this machine; empty: it does."""
        if self.danger == AUTO and domain in SHIPPED_DANGER and not can_run():
            return "no engine for networks is installed here: the danger mask is the rule's"
        return ""

    def prior_task(self, domain: Domain) -> str:
        """What the prior is there: "density", "distances", or the task of the model; loads no weights.

        Raises:
            ModelError: there is no such model.
            SettingsError: it is for other pictures.
            HiResMedSynthError: its packages are missing.
        """
        chosen = self._prior(domain)
        if chosen == DISTANCES and domain != "lung-ct":
            raise SettingsError(
                f"distances from border and vessels mean nothing on {PICTURES[domain]}", remedy=f"Use '{DENSITY}'."
            )
        if chosen in (DENSITY, DISTANCES):
            return chosen
        from HiResMedSynthLib.placement.network import stored_task

        task = stored_task(chosen, words=(AUTO, DENSITY, DISTANCES))
        _refuse_other_task(chosen, task, PRIOR_TASKS[domain], f"{LIKELY} on {PICTURES[domain]}", without=DENSITY)
        if task == "yolo-ct":
            from HiResMedSynthLib.placement.yolo import require_ultralytics

            require_ultralytics()
        elif task != OF_FILMS and not can_run():
            raise HiResMedSynthError(
                "nothing that runs networks is installed",
                remedy=f"Install the extra in the project's folder: pip install '.[models]'. Or choose '{DENSITY}'.",
            )
        return task

    def local_factor(self, domain: Domain, *, device: str = "cpu") -> LocalFactor | None:
        """What multiplies the density of real lesions, its network (but YOLO's) on that device; None: nothing does.

        Raises:
            HiResMedSynthError: as for `prior_task`.
        """
        chosen, task = self._prior(domain), self.prior_task(domain)
        if task in (DENSITY, OF_FILMS):
            return None
        if task == DISTANCES:
            from HiResMedSynthLib.placement.surroundings import distance_heat

            return LocalFactor(name="distances from the lung's border and vessels", heat=distance_heat)
        from HiResMedSynthLib.placement.location_network import learned_heat, network_likeness
        from HiResMedSynthLib.placement.network import load_network

        if task == "yolo-ct":
            from HiResMedSynthLib.placement.yolo import load_detector

            model = load_detector(chosen)
        else:
            model = network_likeness(load_network(chosen, device=device))
        return LocalFactor(name=f"model {chosen}", heat=lambda image, lungs: learned_heat(image, lungs, model=model))

    def film_density(self, domain: Domain) -> NDArray[np.float32] | None:
        """float32 `[32, 32]` in the box around both lungs, in place of the shipped density; None: nothing is.

        Raises:
            HiResMedSynthError: as for `prior_task`.
        """
        if self.prior_task(domain) != OF_FILMS:
            return None
        from HiResMedSynthLib.placement.film_density import load_density

        return load_density(self._prior(domain))

    def _prior(self, domain: Domain) -> str:
        return BEST_PRIOR[domain] if self.prior == AUTO else self.prior


def _refuse_other_task(chosen: str, task: str, tasks: tuple[str, ...], asked: str, *, without: str) -> None:
    if task not in tasks:
        raise SettingsError(
            f"the model '{chosen}' tells {USES.get(task, task)}, not {asked}",
            remedy=f"Choose another (hiresmedsynth models list), or '{without}'.",
        )


def can_run() -> bool:
    """Whether anything that runs networks is installed; nothing is imported."""
    return any(importlib.util.find_spec(engine) for engine in ENGINES)
