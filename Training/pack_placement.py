"""Packs a run of a placement trainer into a model file: best averaged weights in float16, the plan, an ONNX graph.

`python -m Training.pack_placement runs/danger danger-ct.safetensors --card CARD.json`; CARD.json holds the fields of
`HiResMedSynthLib.weights.Card`. Then `hiresmedsynth models add danger-ct.safetensors`.
"""

from __future__ import annotations

import io
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from HiResMedSynthLib.errors import HiResMedSynthError, SettingsError
from HiResMedSynthLib.placement.network import ENTRY, GRAPH, KIND, NetworkPlan, build
from HiResMedSynthLib.weights import Card, write_model
from Training.checkpoint import best_weights, load_average


def pack(run: Path, target: Path, told: dict[str, Any]) -> Card:
    """Writes the model file and returns its card.

    Raises:
        SettingsError: `run` holds no training of a placement network, or the card is incomplete.
    """
    state, described = load_average(best_weights(run))
    if "plan" not in described:
        raise SettingsError("This run is of no placement network", where=run, remedy="Give one of train_danger.")
    plan = NetworkPlan.from_json(described["plan"])
    build(plan).load_state_dict(state)
    try:
        card = Card(**{"kind": KIND, "seed": described.get("seed"), "details": {"task": plan.task}, **told})
    except TypeError as problem:
        raise SettingsError(
            f"The card is incomplete ({problem})", remedy="Training/README.md, section Placement, shows one."
        ) from None
    arrays: dict[str, NDArray[Any]] = {
        name: value.half().numpy() for name, value in state.items() if not name.endswith("num_batches_tracked")
    }
    arrays[GRAPH] = np.frombuffer(zlib.compress(graph_without_weights(plan), 9), dtype=np.uint8)
    write_model(target, arrays, card, metadata={ENTRY: json.dumps(plan.to_json())})
    return card


def graph_without_weights(plan: NetworkPlan) -> bytes:
    """The network as ONNX, its weights named as in the state dict and to be given from outside."""
    import onnx

    network = build(plan).eval()
    for value in (*network.parameters(), *network.buffers()):
        if value.is_floating_point():
            value.data.uniform_(0.5, 1.5)  # the exporter would merge weights that are equal
    written = io.BytesIO()
    free = {0: "pictures", 2: "rows", 3: "columns"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter by tracing is deprecated; the other needs a package more
        torch.onnx.export(
            network, (torch.zeros(1, plan.channels, 64, 64),), written, dynamo=False, opset_version=17,
            do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE,  # keeps the weights apart
            input_names=["picture"], output_names=["logits"], dynamic_axes={"picture": free, "logits": free},
        )  # fmt: skip
    model = onnx.load_from_string(written.getvalue())
    names = set(network.state_dict())
    for initial in model.graph.initializer:
        if initial.name not in names:
            continue
        length = 4 * int(np.prod(initial.dims))
        initial.ClearField("raw_data")
        initial.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "weights"), ("offset", "0"), ("length", str(length))):
            entry = initial.external_data.add()
            entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


@click.command()
@click.argument("run", type=click.Path(path_type=Path, exists=True))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--card", type=click.Path(path_type=Path, exists=True), required=True, help="Fields of the card, JSON.")
def main(run: Path, target: Path, card: Path) -> None:
    """Packs the run in RUN into TARGET (.safetensors)."""
    try:
        packed = pack(run, target, json.loads(card.read_text(encoding="utf-8")))
    except (ValueError, HiResMedSynthError) as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"{target}: {packed.name}, {target.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
