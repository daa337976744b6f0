"""The networks of placement: a U-Net of segmentation-models-pytorch by its plan, and its answer to pictures.

A model file is safetensors: float16 weights under the names of the torch module, the plan as JSON in the header entry
`placement`, and the same network as an ONNX graph without weights in the tensor `graph` (deflated). ONNX Runtime is
loaded in a quarter of a second where torch, torchvision and segmentation-models-pytorch need eight, so it is taken for
shipped models; a site's own ones run in torch, for a graph from elsewhere is code that nobody has looked at.
"""

from __future__ import annotations

import importlib.util
import math
import os
import re
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.free_memory import is_short_of_memory
from HiResMedSynthLib.weights import ModelError
from HiResMedSynthLib.whole_tensors import header_entry, read_tensors

if TYPE_CHECKING:
    from torch import nn

KIND = "placement"
ENTRY, GRAPH = "placement", "graph"
VERSION = 1
ENCODER = re.compile(r"[a-z0-9_-]{1,80}")  # of timm; never an address or a folder
FACTS_NEEDED = {
    "danger-ct": ("pixel_mm", "low_hu", "high_hu"),
    "location-ct": ("pixel_mm", "low_hu", "high_hu", "smooth_px"),
}
MULTIPLE = 32  # sides that the encoder halves five times
LARGEST_GRAPH = 8 * 2**20
Engine = Literal["onnxruntime", "torch"]
Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """What a network is and means; stored with its weights.

    Args:
        task: "danger-ct", "danger-film" or "location-ct".
        classes: name of each output channel.
        encoder, decoder: of segmentation_models_pytorch.Unet.
        channels: of the input.
        facts: numbers that its user needs: grid, window.
    """

    task: str
    classes: tuple[str, ...]
    encoder: str = "tu-mobilenetv4_conv_small_050"
    decoder: tuple[int, ...] = (128, 64, 32, 16, 8)
    channels: int = 1
    facts: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> NetworkPlan:
        """What `to_json` wrote.

        Raises:
            ModelError: it is of another version or incomplete.
        """
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise ModelError("the network's plan is of another version", remedy="Train and pack it anew.")
        try:
            plan = cls(
                task=str(told["task"]),
                classes=tuple(str(name) for name in told["classes"]),
                encoder=str(told["encoder"]),
                decoder=tuple(int(width) for width in told["decoder"]),
                channels=int(told["channels"]),
                facts={str(key): float(value) for key, value in told["facts"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ModelError(f"the network's plan is incomplete ({error})", remedy="Train and pack it anew.") from error
        plan.check()
        return plan

    def check(self) -> None:
        """Refuses what no network of ours has.

        Raises:
            ModelError: an encoder that is no plain name, or facts that are missing or can't be.
        """
        facts = self.facts
        sound = ENCODER.fullmatch(self.encoder) and all(math.isfinite(value) for value in facts.values())
        sound = sound and set(FACTS_NEEDED.get(self.task, ())) <= set(facts)
        sound = sound and 0.3 <= facts.get("pixel_mm", 1.0) <= 10 and facts.get("low_hu", 0) < facts.get("high_hu", 1)
        if not (sound and 1 <= self.channels <= 16 and 1 <= len(self.classes) <= 64 and 3 <= len(self.decoder) <= 5):
            raise ModelError("the network's plan can't be", remedy="Train and pack it anew.")


def to_unit(hu: NDArray[np.float32], facts: dict[str, float]) -> NDArray[np.float32]:
    """HU through the window of a plan's facts (`low_hu`, `high_hu`) to -1..1, any shape."""
    low, high = np.float32(facts["low_hu"]), np.float32(facts["high_hu"])
    return np.asarray(np.clip((hu - low) / (high - low), 0, 1) * 2 - 1, dtype=np.float32)


def build(plan: NetworkPlan) -> nn.Module:
    """The untrained network: `[n, channels, rows, columns] -> [n, classes, rows, columns]`, sides multiples of 32.

    Raises:
        HiResMedSynthError: torchvision or segmentation-models-pytorch isn't installed.
        ModelError: there is no such encoder.
    """
    os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is ever fetched
    from HiResMedSynthLib.torchvision_guard import import_torchvision

    import_torchvision()
    try:
        import segmentation_models_pytorch as smp
    except ModuleNotFoundError as error:
        raise ModelError(
            "segmentation-models-pytorch is not installed",
            remedy="Install the extra from the project's folder: python -m pip install '.[models]'.",
        ) from error
    try:
        network: nn.Module = smp.Unet(
            plan.encoder,
            encoder_depth=len(plan.decoder),
            encoder_weights=None,
            in_channels=plan.channels,
            classes=len(plan.classes),
            decoder_channels=plan.decoder,
        )
    except (KeyError, RuntimeError, ValueError, OSError) as error:
        raise ModelError(
            f"the network '{plan.encoder}' can't be built", remedy="Update segmentation-models-pytorch."
        ) from error
    return network


class PlacementNetwork:
    """A trained network, ready to answer.

    Args:
        plan: what it is.
        run: `[n, channels, rows, columns] -> [n, classes, rows, columns]` for sides that are multiples of 32.
        name: under which it was found, for the record.
        engine: what runs it.
        own: whether it is a model of the user's own: then it may be the model's fault that nothing is found.
    """

    def __init__(self, plan: NetworkPlan, run: Run, *, name: str, engine: Engine, own: bool = False) -> None:
        self.plan, self.name, self.engine, self.own, self._run = plan, name, engine, own, run

    @classmethod
    def of(
        cls, plan: NetworkPlan, module: nn.Module, *, name: str = "in training", own: bool = False
    ) -> PlacementNetwork:
        """The network of a torch module, where that lies; it answers in evaluation mode and is left as it was.

        A GPU computes in full float32, so that it names what the CPU names, but for pixels on a border.
        """
        import torch

        def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
            was_training = module.training
            module.eval()
            try:
                with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    placed = torch.from_numpy(pictures).to(next(module.parameters()).device)
                    answer = module(placed.contiguous(memory_format=torch.channels_last))
                    return np.asarray(answer.float().cpu().numpy(), dtype=np.float32)
            finally:
                module.train(was_training)

        return cls(plan, run, name=name, engine="torch", own=own)

    def logits(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[n, classes, rows, columns]` for `[n, channels, rows, columns]` of any size (its edges are repeated).

        Raises:
            ModelError: another number of channels.
        """
        if pictures.ndim != 4 or pictures.shape[1] != self.plan.channels:
            raise ModelError(
                f"the network '{self.name}' takes {self.plan.channels} channels, not pictures of {pictures.shape}",
                remedy="Give [n, channels, rows, columns].",
            )
        rows, columns = pictures.shape[2:]
        down, right = -rows % MULTIPLE, -columns % MULTIPLE
        padded = np.pad(pictures.astype(np.float32, copy=False), ((0, 0), (0, 0), (0, down), (0, right)), mode="edge")
        return self._run(np.ascontiguousarray(padded))[:, :, :rows, :columns]


def load_network(name: str, *, engine: Engine | None = None, device: str = "cpu") -> PlacementNetwork:
    """The network of a model by name, kept for the next call.

    Args:
        name: of a shipped model or of one in the user's store.
        engine: what runs it; None: ONNX Runtime for a shipped model where it is installed, else torch.
        device: of torch; a GPU is named in the network's name, for the record.

    Raises:
        ModelError: there is none, or it is damaged or of another architecture.
    """
    model = weights.find(name, KIND)
    if engine is None:
        fast = device == "cpu" and model.shipped and importlib.util.find_spec("onnxruntime") is not None
        engine = "onnxruntime" if fast else "torch"
    return _loaded(model.path, model.card.name, model.card.sha256, engine, device, own=not model.shipped)


def stored_task(name: str, *, words: tuple[str, ...]) -> str:
    """What a placement model of that name is for; loads no weights. `words` as for `weights.find`.

    Raises:
        ModelError: there is no such model, or it says nothing of it.
    """
    task = (header_entry(weights.find(name, KIND, words=words).path, ENTRY) or {}).get("task")
    if task is None:
        raise ModelError(f"the model '{name}' doesn't say what it is for", remedy="Train it anew.")
    return str(task)


@lru_cache(maxsize=8)
def _loaded(path: Path, name: str, _sha256: str, engine: Engine, device: str, *, own: bool) -> PlacementNetwork:
    try:
        arrays, told = read_tensors(path, ENTRY, "np")
        plan = NetworkPlan.from_json(told)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"the model '{name}' holds no network of placement ({type(error).__name__})",
            remedy="Train it anew: python -m Training.train_danger --help.",
        ) from error
    graph = arrays.pop(GRAPH, None)
    full = {key: value.astype(np.float32) for key, value in arrays.items()}
    if engine == "onnxruntime" and graph is not None:
        return PlacementNetwork(plan, _onnx_run(name, graph, full), name=name, engine="onnxruntime", own=own)
    module = _module(name, plan, full)
    if device == "cpu":
        return PlacementNetwork.of(plan, module, name=name, own=own)
    try:
        return PlacementNetwork.of(plan, module.to(device), name=f"{name} on {device}", own=own)
    except (RuntimeError, AssertionError) as problem:  # a GPU is full or not there; a build for the CPU
        if is_short_of_memory(problem):
            raise MemoryError from problem
        what = f"the device '{device}' can't be used ({str(problem).splitlines()[0][:120]})"
        raise SettingsError(what, remedy="Use --device cpu.") from problem


def _module(name: str, plan: NetworkPlan, arrays: dict[str, NDArray[np.float32]]) -> nn.Module:
    import torch

    module: Any = build(plan)
    told = module.state_dict()
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    missing = [key for key in told if key not in state and not key.endswith("num_batches_tracked")]
    if missing or any(key not in told or told[key].shape != value.shape for key, value in state.items()):
        raise ModelError(
            f"the model '{name}' is of another architecture than its plan says", remedy="Train and pack it anew."
        )
    module.load_state_dict(state, strict=False)
    module.to(memory_format=torch.channels_last)
    module.eval()
    return module  # type: ignore[no-any-return]


def _onnx_run(name: str, graph: NDArray[np.uint8], arrays: dict[str, NDArray[np.float32]]) -> Run:
    import onnxruntime

    inflate = zlib.decompressobj()
    written = inflate.decompress(graph.tobytes(), LARGEST_GRAPH)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    values = {key: onnxruntime.OrtValue.ortvalue_from_numpy(value) for key, value in arrays.items()}
    options.add_external_initializers(list(values), list(values.values()))
    try:
        session = onnxruntime.InferenceSession(written, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has classes of its own for each fault, none of them public
        raise ModelError(f"the model '{name}' can't be run", remedy="Reinstall HiResMedSynth.") from error

    def run(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {"picture": pictures})[0], dtype=np.float32)

    return run
