"""A token prior of the model store by its name, checked against the cascade that is to draw films from its codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from HiResMedSynthLib import weights
from HiResMedSynthLib.background.cascade import FilmCascade
from HiResMedSynthLib.background.find_model import BackgroundModel
from HiResMedSynthLib.background.token_prior import TokenPrior, encoder_fingerprint, load_prior
from HiResMedSynthLib.errors import ReadError

KIND = "background-prior"
COUNTED = 0.5  # share of a code's cell that must be image; of others the prior learned nothing


@dataclass(frozen=True, kw_only=True)
class BackgroundPrior:
    """A prior under its name, and how it is drawn from; `sha256` of its file.

    `steps` (of a masked prior: GPT draws one code after the other), `temperature` and `guidance` (strength of the sex)
    are those of `TokenPrior.sample`.
    """

    name: str
    prior: TokenPrior
    sha256: str = ""
    steps: int = 16
    temperature: float = 1.0
    guidance: float = 1.0

    @property
    def identity(self) -> str:
        """The name and the beginning of the hash, for records."""
        return weights.identity(self.name, self.sha256)

    @property
    def in_steps(self) -> bool:
        """Whether `steps` says how it draws."""
        return self.prior.network.shape.kind == "masked"

    @property
    def how(self) -> str:
        """In one clause, for records, what is needed to draw the same codes again."""
        steps = f"{self.steps} steps, " if self.in_steps else ""
        return f"{self.identity}, {steps}temperature {self.temperature:g}, guidance {self.guidance:g}"

    def recorded(self) -> dict[str, Any]:
        """The same for a record of a run, as JSON values."""
        drawn = {"temperature": self.temperature, "guidance": self.guidance}
        steps = {"steps": self.steps} if self.in_steps else {}
        return {"name": self.name, "sha256": self.sha256, **steps, **drawn}

    def complete(
        self, codes: Tensor, known: Tensor, *, cascade: FilmCascade, inside: Tensor, seed: int, sex: str | None
    ) -> tuple[Tensor, Tensor]:
        """The codes [1, digits, g, g] with those drawn that aren't `known` [1, 1, g, g], and which are known then.

        `inside` [1, 1, h, w] is 1 in the film's field: of cells of padding no code is told.

        Raises:
            SettingsError: the prior is of another codebook, or knows no sexes where one is asked for.
        """
        field = nn.functional.avg_pool2d(inside, inside.shape[-1] // cascade.grid)
        drawn = self.prior.sample(
            1,
            seed=seed,
            sex=sex,
            steps=self.steps,
            temperature=self.temperature,
            guidance=self.guidance,
            encoder_fingerprint=encoder_fingerprint(cascade.first),
            codes=codes,
            known=known,
            inside=field,
        )
        return drawn, torch.maximum(known, (field > COUNTED).to(known.dtype))


def load_background_prior(name: str, model: BackgroundModel) -> BackgroundPrior:
    """The prior of that name in the model store, for this model.

    Raises:
        ModelError: there is none, it is of another kind, or its file was changed.
        ReadError: the file holds no prior, or one of another model's codes.
    """
    found = weights.find(name, KIND)
    try:
        own = encoder_fingerprint(model.cascade.first)
        prior = load_prior(found.path, encoder_fingerprint=own, model_name=model.name)
    except ReadError as problem:
        raise ReadError(problem.what, where=found.path.name, remedy=problem.remedy) from problem
    return BackgroundPrior(name=found.card.name, prior=prior, sha256=found.card.sha256)
