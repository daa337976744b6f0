"""How places are found: by which danger mask and which prior, and how strictly the prior is followed."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.placement.domain import Domain

if TYPE_CHECKING:
    from HiResMedSynthLib.placement.network import PlacementNetwork

AUTO, RULE, DENSITY = "auto", "rule", "density"
# what "auto" means where its engine is installed: the networks that measured better than the rule (docs/results)
SHIPPED_DANGER: dict[Domain, str] = {"lung-ct": "danger-ct", "cxr": "danger-film"}
SHIPPED_PRIOR: dict[Domain, str] = {}
DANGER_TASKS: dict[Domain, str] = {"lung-ct": "danger-ct", "cxr": "danger-film", "kub": "danger-film"}
PRIOR_TASKS: dict[Domain, str] = {"lung-ct": "location-ct"}
ENGINES = ("onnxruntime", "segmentation_models_pytorch")


@dataclass(frozen=True, kw_only=True)
class PlacementMethod:
    """How places are found.

    Args:
        danger: "auto" (the best shipped way), "rule", or the name of a model.
        prior: "auto", "density" (where lesions occurred, without looking at the picture), or the name of a model.
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

    def danger_network(self, domain: Domain) -> PlacementNetwork | None:
        """The network that names what is forbidden; None: the rule does.

        Raises:
            ModelError: there is no such model.
            SettingsError: it is for other pictures.
        """
        return _network(self.danger, RULE, SHIPPED_DANGER.get(domain), DANGER_TASKS[domain], domain)

    def fallback(self, domain: Domain) -> str:
        """What the record should say where "auto" can't mean the best way on this machine; empty: it does."""
        if self.danger == AUTO and domain in SHIPPED_DANGER and not can_run():
            return "no engine for networks is installed here: the danger mask is the rule's"
        return ""

    def prior_network(self, domain: Domain) -> PlacementNetwork | None:
        """The network that says where lesions are likely; None: their density alone.

        Raises:
            ModelError, SettingsError: as for `danger_network`.
        """
        return _network(self.prior, DENSITY, SHIPPED_PRIOR.get(domain), PRIOR_TASKS.get(domain), domain)


def _network(
    chosen: str, without: str, shipped: str | None, task: str | None, domain: Domain
) -> PlacementNetwork | None:
    if chosen == without or (chosen == AUTO and shipped is None):
        return None
    if chosen == AUTO and not can_run():
        return None
    from HiResMedSynthLib.placement.network import load_network

    network = load_network(shipped if chosen == AUTO and shipped is not None else chosen)
    if network.plan.task != task:
        raise SettingsError(
            f"the model '{chosen}' ({network.plan.task}) is not for this purpose on {domain} images",
            remedy=f"Choose another (hiresmedsynth models list), or '{without}'.",
        )
    return network


def can_run() -> bool:
    """Whether anything that runs networks is installed; nothing is imported."""
    return any(importlib.util.find_spec(engine) for engine in ENGINES)
