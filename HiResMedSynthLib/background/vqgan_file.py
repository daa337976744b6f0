"""A trained VQGAN as one safetensors file: weights, and in its header the shape and the codebook's fingerprint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from HiResMedSynthLib.background.quantiser import Codebook
from HiResMedSynthLib.background.vqgan import Vqgan, VqganShape
from HiResMedSynthLib.errors import HiResMedSynthError, ReadError
from HiResMedSynthLib.whole_tensors import read_tensors, reason, save_tensors


def codebook_fingerprint(network: Vqgan) -> str:
    """16 hex digits that tell which codes the indices mean; a prior over indices belongs to one of them."""
    quantiser = network.quantiser
    meant = (
        quantiser.vectors.detach().cpu().half().numpy().tobytes()
        if isinstance(quantiser, Codebook)
        else repr(quantiser.levels).encode()
    )
    return hashlib.sha256(meant).hexdigest()[:16]


def save_vqgan(network: Vqgan, path: Path, **facts: Any) -> None:
    """Writes the weights in float16, all or nothing; `facts` (spacing, training size) go into the header as JSON."""
    header = {"shape": network.shape.to_json(), "codebook": codebook_fingerprint(network), **facts}
    stored = {name: value.detach().cpu().half().contiguous() for name, value in network.state_dict().items()}
    save_tensors(path, stored, {"vqgan": json.dumps(header)})


def load_vqgan(path: Path) -> tuple[Vqgan, dict[str, Any]]:
    """(network in float32, evaluating; the header's facts).

    Raises:
        ReadError: it is no VQGAN, is damaged, or lacks its codebook.
    """
    try:
        stored, header = read_tensors(path, "vqgan", "pt")
        network = Vqgan(VqganShape.from_json(header["shape"]))
        missing = "quantiser.vectors" in network.state_dict() and "quantiser.vectors" not in stored
        if not missing:
            network.load_state_dict(stored)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, HiResMedSynthError) as problem:
        raise ReadError(
            f"This is no VQGAN ({reason(problem)})", where=path, remedy="Use a file that the trainer wrote."
        ) from None
    if missing or codebook_fingerprint(network) != header.get("codebook"):
        raise ReadError("The VQGAN's codebook is missing or another", where=path, remedy="Use the whole file.")
    placed: Any = network.eval()
    placed.to(memory_format=torch.channels_last)  # its overload is not in torch's types
    return network, header
