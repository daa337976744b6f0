"""A background model by its name or domain: from the release or the user's model store, checked and loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.free_memory import is_short_of_memory
from HiResMedSynthLib.whole_tensors import header_entry

if TYPE_CHECKING:
    from HiResMedSynthLib.background.cascade import FilmCascade

DOMAIN_PATTERN = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")  # it names files, so it holds no folder
KIND = "background"
HOW_TO_ADD = (
    "Add one: hiresmedsynth models add FILE.safetensors (of a release, or of your own training with the card "
    "that Training.release_model puts in); "
    "what is there: hiresmedsynth models list --kind background."
)


@dataclass(frozen=True, kw_only=True)
class BackgroundModel:
    """A cascade under its name; `sha256` of its file."""

    name: str
    cascade: FilmCascade
    sha256: str = ""

    @property
    def identity(self) -> str:
        """The name and the beginning of the hash, for records."""
        return weights.identity(self.name, self.sha256)


def find_background(
    name: str | None = None, domain: str | None = None, *, on_note: Callable[[str], None] | None = None
) -> weights.Model:
    """The model of that name; without one the domain's own (of the same name), else the first that makes it.

    Where no name is asked for, damaged models are passed over while there is a sound one; `on_note` is told of each.

    Raises:
        ModelError: there is none, it is damaged, or it makes another domain.
    """
    if name is not None:
        found = weights.find(name, KIND)
        made = domain_of(found.path)
        if domain is not None and made is not None and made != domain:
            raise weights.ModelError(
                f"the model '{name}' makes {made}, not {domain}", remedy=f"Leave --domain out, or give {made}."
            )
        return found
    wanted = domain or "cxr"
    fitting = [model.card.name for model in weights.models(KIND) if domain_of(model.path) == wanted]
    if wanted in fitting or wanted in weights.damaged():
        fitting = [wanted, *(other for other in fitting if other != wanted)]
    problems: list[weights.ModelError] = []
    for candidate in fitting:
        try:
            found = weights.find(candidate, KIND)
        except weights.ModelError as problem:
            problems.append(problem)
            continue
        if on_note is not None:
            for passed in problems:
                on_note(f"{passed.what}; the model '{candidate}' is taken instead")
        return found
    if problems:
        raise problems[0]
    raise weights.ModelError(f"there is no model that makes {wanted} backgrounds", remedy=HOW_TO_ADD)


def load_background(found: weights.Model, device: str = "cpu") -> BackgroundModel:
    """The model, ready to sample on that device. A seed's film differs a little between devices.

    Raises:
        ModelError: it is a VQGAN, which makes no new images.
        ReadError: the file holds no cascade.
        SettingsError: the memory is not enough, or the device can't be used.
        MemoryError: the device's memory is not enough.
    """
    from HiResMedSynthLib.background.cascade import load_cascade

    if is_vqgan(found.path):
        raise weights.ModelError(
            f"the model '{found.card.name}' rebuilds images (a VQGAN); it makes none without a prior over its codes",
            remedy=f"Rebuild one: hiresmedsynth reconstruct IMAGE --model {found.card.name} --out FILE.",
        )
    with loading(found, device):
        cascade = load_cascade(found.path).on(device)
    return BackgroundModel(name=found.card.name, cascade=cascade, sha256=found.card.sha256)


@contextmanager
def loading(found: weights.Model, device: str) -> Iterator[None]:
    """Within it, what goes wrong while the model is loaded onto that device is told as `load_background` does."""
    try:
        if device != "cpu":
            import torch

            torch.zeros(1, device=device).add(1)  # to move weights needs no kernel, so a card too old would show later
        yield
    except ReadError as problem:
        raise ReadError(problem.what, where=found.path.name, remedy=HOW_TO_ADD) from problem
    except MemoryError as problem:
        raise SettingsError(
            f"there is not enough memory to load the model '{found.card.name}' ({found.card.bytes / 1e6:.0f} MB)",
            remedy="Close other programs.",
        ) from problem
    except (RuntimeError, AssertionError) as problem:  # a GPU is full, too old or not there; a build for the CPU
        if device == "cpu":
            raise
        if is_short_of_memory(problem):
            raise MemoryError(str(problem)) from problem  # the backend then goes on on the CPU
        raise SettingsError(
            f"the device '{device}' can't be used ({str(problem).splitlines()[0][:120]})", remedy="Use --device cpu."
        ) from problem


def domain_of(path: Path) -> str | None:
    """What a model file says that it makes; None where it is no cascade, or says what no domain can be."""
    domain = (header_entry(path, "cascade") or {}).get("domain")
    return domain if isinstance(domain, str) and DOMAIN_PATTERN.fullmatch(domain) else None


def is_vqgan(path: Path) -> bool:
    """Whether a model file holds a VQGAN, for `rebuild.load_rebuilder`."""
    return header_entry(path, "vqgan") is not None
