"""Priors over the codes of a background: loaded from a file, drawn from by a seed.

The file is safetensors in float16; its header's `prior` entry (JSON) holds the shape, the fingerprint of the encoder
whose codes the prior learned, and what was measured. Codes of another encoder mean other anatomy: refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from HiResMedSynthLib.background.cascade import SEXES
from HiResMedSynthLib.background.film_network import FilmNetwork
from HiResMedSynthLib.background.quantiser import FSQ
from HiResMedSynthLib.background.token_gpt import GptPrior
from HiResMedSynthLib.background.token_layers import PriorShape, to_digits
from HiResMedSynthLib.background.token_masked import MaskedPrior
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError, SettingsError
from HiResMedSynthLib.whole_tensors import read_tensors, reason, save_tensors

STREAM = 11  # keeps the codes' noise apart from other noise of the same seed
OTHER_CODES = "Use the prior that was trained with this model, or train one: python -m Training.train_token_prior."


@dataclass(frozen=True, kw_only=True)
class TokenPrior:
    """A trained prior.

    Attributes:
        network: evaluating.
        fingerprint: of the encoder whose codes it knows, see `encoder_fingerprint`.
        facts: what else the file's header says (domain, films, steps, measured NLL).
    """

    network: MaskedPrior | GptPrior
    fingerprint: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def sample(
        self,
        count: int,
        *,
        seed: int,
        encoder_fingerprint: str,
        sex: str | None = None,
        steps: int = 16,
        temperature: float = 1.0,
        guidance: float = 1.0,
        codes: Tensor | None = None,
        known: Tensor | None = None,
        inside: Tensor | None = None,
    ) -> Tensor:
        """[count, D, g, g] in -1..1: codes for `FilmCascade.generate`; the k-th depends on seed + k alone.

        Args:
            count: how many.
            seed: of all noise.
            encoder_fingerprint: of the cascade that shall draw them (`encoder_fingerprint(cascade.first)`).
            sex: "F", "M" or None for unknown.
            steps: of the masked prior, 8 to 64; GPT takes one a position.
            temperature: 1 draws as learned, less draws what is common, 0 the likeliest.
            guidance: strength of the sex, 1 for none.
            codes: [1, D, g, g], codes to keep where `known`.
            known: [1, 1, g, g], 1 where `codes` hold; None: nowhere.
            inside: [g, g] 0..1, share of each cell that is image and not padding; None: all.

        Raises:
            SettingsError: the prior is of another codebook or knows no sexes, or a number that can't be.
        """
        if encoder_fingerprint != self.fingerprint:
            raise SettingsError(
                f"The token prior was trained for {trained_for(self.facts)}, not for this one", remedy=OTHER_CODES
            )
        if sex not in SEXES:
            raise SettingsError(f"no sex {sex}", remedy="Give F or M, or leave it out.")
        if SEXES[sex] > self.network.shape.classes:
            raise SettingsError("The token prior knows no sexes", remedy="Leave the sex out.")
        finite = 0 <= temperature < math.inf and math.isfinite(guidance)
        if count < 1 or steps < 1 or not finite or seed < 0 or (known is not None and codes is None):
            raise SettingsError(
                "These numbers can't be sampled with",
                remedy="Give count and steps from 1 up, seed and temperature from 0 up, codes where some are known.",
            )
        shape, device = self.network.shape, self.network.place.device
        grid = (1, shape.grid, shape.grid)
        label = torch.tensor([SEXES[sex]], device=device)
        if label[0] and guidance != 1:
            label = torch.cat([label, torch.zeros_like(label)])
        digits = torch.zeros(1, len(shape.levels), *grid[1:], dtype=torch.long)
        if codes is not None:
            digits = to_digits(codes, shape.levels)
        told = torch.zeros(grid, dtype=torch.bool) if known is None else known[:, 0] > 0.5
        area = torch.ones(grid) if inside is None else inside.view(grid)
        drawn = [
            # one at a time: how many are asked for must not change any of them
            self.network.draw(
                digits.to(device), told=told.to(device), field=area.to(device), label=label, steps=steps,
                temperature=temperature, guidance=guidance, rng=np.random.default_rng((seed + number, STREAM)),
            )
            for number in range(count)
        ]  # fmt: skip
        return FSQ(shape.levels).to_values(torch.cat(drawn).cpu())


@torch.no_grad()
def encoder_fingerprint(network: FilmNetwork) -> str:
    """16 hex digits of the SHA-256 of the encoder's levels and tensors, as a release holds them (float16)."""
    digest = hashlib.sha256(repr(network.code_shape.levels).encode())
    for name, value in sorted(network.encoder.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def build_prior(shape: PriorShape) -> MaskedPrior | GptPrior:
    """The untrained network of that shape."""
    return MaskedPrior(shape) if shape.kind == "masked" else GptPrior(shape)


def save_prior(
    network: MaskedPrior | GptPrior,
    path: Path,
    *,
    fingerprint: str,
    facts: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes one file that is either the old or the new one; `metadata`: further header entries (a card)."""
    header = {"shape": network.shape.to_json(), "encoder": fingerprint, "facts": dict(facts or {})}
    stored = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    save_tensors(path, stored, {**(metadata or {}), "prior": json.dumps(header)})


def trained_for(facts: Mapping[str, Any], asked: str | None = None) -> str:
    """The background model that a prior's facts name, in words; "another" where they tell none but the one `asked`."""
    name = str(facts.get("model") or "")[:64]
    return "another background model" if name in ("", asked) else f"the background model '{name}'"


def load_prior(path: Path, *, encoder_fingerprint: str | None = None, model_name: str | None = None) -> TokenPrior:
    """The prior of a file, in float32, evaluating; `model_name`: what the fingerprint's model is called, if known.

    Raises:
        ReadError: it is no such file, is damaged, or (where `encoder_fingerprint` is given) is of another codebook.
    """
    try:
        stored, header = read_tensors(path, "prior", "pt")
        network = build_prior(PriorShape.from_json(header["shape"]))
        network.load_state_dict(stored)
        prior = TokenPrior(network=network.eval(), fingerprint=str(header["encoder"]), facts=dict(header["facts"]))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, HiResMedSynthError) as problem:
        raise ReadError(
            f"This is no token prior ({reason(problem)})", where=path, remedy="Use a file that the trainer wrote."
        ) from None
    if encoder_fingerprint not in (None, prior.fingerprint):
        asked = "this one" if model_name is None else f"'{model_name}'"
        raise ReadError(
            f"The token prior was trained for {trained_for(prior.facts, model_name)}, not for {asked}",
            where=path,
            remedy=OTHER_CODES,
        )
    return prior
