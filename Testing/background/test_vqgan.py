"""The VQGAN: its layers counted by hand, the code grid, and that nothing passes the codebook by."""

from __future__ import annotations

import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from HiResMedSynthLib.background.cascade import load_cascade
from HiResMedSynthLib.background.hdfb import HDFB, BlockReading
from HiResMedSynthLib.background.quantiser import Codebook
from HiResMedSynthLib.background.vqgan import (
    ChannelAttention,
    Decoder,
    DualPath,
    ResidualBlock,
    Vqgan,
    VqganShape,
    preset_shape,
)
from HiResMedSynthLib.background.vqgan_cost import describe, describe_side_by_side, match_parameters
from HiResMedSynthLib.background.vqgan_file import codebook_fingerprint, load_vqgan, save_vqgan
from HiResMedSynthLib.errors import ReadError, SettingsError
from Testing.background.tiny_cascade import write_tiny
from Testing.benchmarks.background_cost import table

TINY = replace(preset_shape("paper", size=64, widths=(4, 8, 8, 16)), codes=32, dimension=8)


@pytest.fixture
def network() -> Vqgan:
    torch.manual_seed(0)
    return Vqgan(TINY).eval()


@pytest.mark.parametrize("size", [64, 128, 192])
@pytest.mark.parametrize("name", ["paper", "vqgan"])
def test_any_multiple_of_64_comes_back_in_its_size(name: str, size: int) -> None:
    network = Vqgan(replace(preset_shape(name, size=size, widths=(4, 8, 8, 16)), codes=32, dimension=8))
    result = network(torch.randn(2, 1, size, size))
    assert result.indices.shape == (2, size // 64, size // 64)
    assert result.image.shape == (2, 1, size, size)


def test_1024_pixels_are_16_by_16_codes_of_the_paper() -> None:
    with torch.device("meta"):
        network = Vqgan(preset_shape("paper"))
        assert network.encoder(torch.empty(1, 1, 1024, 1024)).shape == (1, 256, 16, 16)
    assert network.state_dict()["quantiser.vectors"].shape == (1024, 256)


def test_the_papers_layers() -> None:
    with torch.device("meta"):
        network = Vqgan(preset_shape("paper"))
    down = [layer for layer in network.encoder.modules() if isinstance(layer, nn.Conv2d) and layer.stride == (4, 4)]
    assert [(layer.in_channels, layer.out_channels) for layer in down] == [(64, 128), (128, 256), (256, 512)]
    assert {(layer.kernel_size, layer.padding) for layer in down} == {((6, 6), (1, 1))}
    up = [layer for layer in network.decoder.modules() if isinstance(layer, nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in up] == [(256, 256), (256, 128), (128, 64)]
    assert {(layer.kernel_size, layer.stride) for layer in up} == {((4, 4), (4, 4))}
    kinds = [type(layer) for layer in network.decoder.layers.children()][-3:]
    assert kinds == [nn.ConvTranspose2d, HDFB, ChannelAttention]
    for part, blocks in ((network.encoder, (64, 128, 256, 512, 512)), (network.decoder, (256, 256, 256, 128, 64))):
        found = [layer for layer in part.modules() if isinstance(layer, HDFB)]
        assert tuple(block.first_norm.num_channels for block in found) == blocks
        assert sum(isinstance(layer, DualPath) for layer in part.modules()) == 1
    rates = [layer.fuse.drop_path.rate for layer in network.modules() if isinstance(layer, HDFB)]
    assert rates == pytest.approx([0.1 * step / 9 for step in range(10)])


def hdfb_weights(c: int) -> int:
    """Two 3x3, one depthwise 5x5, one 1x1 convolution, each with its bias; three norms."""
    return 2 * (9 * c * c + c) + 25 * c + c + c * c + c + 3 * 2 * c


def hdfb_macs(c: int, side: int) -> int:
    return (19 * c * c + 25 * c) * side**2


def test_parameters_and_gmac_by_hand() -> None:
    def convolution(a: int, b: int, k: int) -> int:
        return a * b * k * k + b

    def dual(c: int) -> int:
        return convolution(1, c, 3) + convolution(c, c, 1) + convolution(c, c, 3) + 2 * 2 * c

    def attention(c: int) -> int:
        return convolution(c, c // 16, 1) + convolution(c // 16, c, 1)

    encoder = convolution(1, 64, 3) + sum(map(hdfb_weights, (64, 128, 256, 512, 512)))
    encoder += convolution(64, 128, 6) + convolution(128, 256, 6) + convolution(256, 512, 6)
    encoder += dual(512) + convolution(512, 256, 1)
    decoder = convolution(256, 256, 1) + sum(map(hdfb_weights, (256, 256, 256, 128, 64)))
    decoder += convolution(256, 256, 4) + convolution(256, 128, 4) + convolution(128, 64, 4)
    decoder += attention(256) + attention(128) + attention(64) + dual(64) + 2 * 64 + convolution(64, 1, 3)
    macs = 2 * (hdfb_macs(64, 1024) + hdfb_macs(128, 256)) + 2 * hdfb_macs(256, 64) + 2 * hdfb_macs(512, 16)
    macs += 2 * hdfb_macs(256, 16)
    macs += 36 * (64 * 128 * 256**2 + 128 * 256 * 64**2 + 256 * 512 * 16**2)
    macs += 16 * (256 * 256 * 16**2 + 256 * 128 * 64**2 + 128 * 64 * 256**2)
    macs += 2 * 9 * 64 * 1024**2 + (10 * 512**2 + 9 * 512) * 16**2 + (10 * 64**2 + 9 * 64) * 1024**2
    macs += 2 * (512 * 256 * 16**2) - 256 * 256 * 16**2  # to the code, and from it with half the channels
    macs += 2 * (256 * 16 + 128 * 8 + 64 * 4)
    cost = describe(preset_shape("paper"))
    assert cost.parameters == encoder + decoder + 1024 * 256
    assert cost.gmac == pytest.approx(macs / 1e9, rel=1e-9)


def test_costs_are_printed_side_by_side() -> None:
    printed = describe_side_by_side({"paper": TINY, "vqgan": replace(TINY, block="residual")}, size=128)
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:]] == ["paper", "vqgan"]
    assert "128 px" in printed


def test_all_presets_stand_in_one_table(tmp_path: Path) -> None:
    cascade = load_cascade(write_tiny(tmp_path))
    paper, better = (line.strip("| ").split(" | ") for line in table({"paper": TINY}, cascade).splitlines()[2:])
    assert (paper[0], better[0]) == ("paper", "better")
    counted = sum(p.numel() for stage in cascade.stages.values() for p in stage.network.parameters())
    assert int(better[2].replace(",", "")) == counted
    assert float(paper[3]) == pytest.approx(2 * describe(TINY, size=cascade.side).gmac, abs=0.05)
    assert 0 < float(better[3]) < float(better[4])  # told its codes, a film takes a third of the first evaluations


def test_baseline_differs_in_its_blocks_only() -> None:
    def others(name: str) -> list[tuple[str, str]]:
        with torch.device("meta"):
            layers = Vqgan(preset_shape(name)).modules()
        inner: set[nn.Module] = set()
        found = []
        for layer in layers:
            if isinstance(layer, (HDFB, ResidualBlock)):
                inner |= set(layer.modules())
            elif layer not in inner and not list(layer.children()):
                found.append((type(layer).__name__, layer.extra_repr()))
        return found

    assert others("paper") == others("vqgan")


@pytest.mark.parametrize("widths", [(64, 128, 256, 512), (16, 32, 64, 128), (4, 8, 8, 16)])
def test_matched_widths_give_equal_weights_within_two_percent(widths: tuple[int, ...]) -> None:
    wanted = describe(preset_shape("paper", widths=widths)).parameters
    matched = match_parameters(preset_shape("vqgan", widths=widths), wanted)
    assert matched.block == "residual"
    assert describe(matched).parameters == pytest.approx(wanted, rel=0.02)


def test_impossible_match_is_refused() -> None:
    wanted = describe(TINY).parameters + 1  # no width is worth one weight
    with pytest.raises(SettingsError, match="weights"):
        match_parameters(TINY, wanted, tolerance=1e-9)


def test_image_is_made_from_the_indices_alone(network: Vqgan) -> None:
    image = torch.randn(2, 1, 128, 128)
    result = network(image)
    assert torch.equal(result.indices, network.encode(image))
    assert torch.equal(result.image.detach(), network.decode(result.indices))
    assert list(inspect.signature(Decoder.forward).parameters) == ["self", "values"]


def test_what_the_indices_do_not_say_is_lost(network: Vqgan) -> None:
    image = torch.randn(1, 1, 128, 128)
    other = image + 1e-4 * torch.randn_like(image)
    assert not torch.equal(network.encoder(image), network.encoder(other))
    assert torch.equal(network.encode(image), network.encode(other))
    assert torch.equal(network(image).image, network(other).image)  # to the bit


def test_no_path_leads_round_the_codebook(network: Vqgan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network.quantiser, "nearest", lambda encoded: torch.zeros_like(encoded[:, 0]).long())
    images = network.train(False)(torch.randn(3, 1, 64, 64)).image
    assert torch.equal(images, images[:1].expand_as(images))


def test_codes_of_the_padding_cost_nothing(network: Vqgan) -> None:
    image, mask = torch.randn(1, 1, 64, 128), torch.ones(1, 1, 64, 128)
    mask[..., 64:] = 0
    whole, left = network(image), network(image, mask)
    error = (network.encoder(image) - network.quantiser.look_up(whole.indices)).detach()[..., :1].square().mean()
    commitment = float(left.commitment.detach())
    assert commitment == pytest.approx(float(error), rel=1e-5)
    assert commitment != pytest.approx(float(whole.commitment.detach()), rel=1e-5)


def test_three_channels_take_a_grey_image() -> None:
    network = Vqgan(replace(TINY, channels=3)).eval()
    grey = torch.randn(1, 1, 64, 64)
    assert network(grey).image.shape == (1, 3, 64, 64)
    assert torch.equal(network.encode(grey), network.encode(grey.expand(-1, 3, -1, -1)))


def test_fsq_in_place_of_the_codebook_has_no_loss() -> None:
    result = Vqgan(replace(TINY, levels=(8, 5, 5, 5)))(torch.randn(1, 1, 64, 64))
    assert float(result.commitment + result.codebook) == 0
    assert int(result.indices.max()) < 1000


def test_all_convolutions_start_as_the_paper_says() -> None:
    network = Vqgan(replace(TINY, encoder_widths=(32, 64, 64, 64)))
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) and layer.weight.numel() > 10_000:
            assert float(layer.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("path", ["convolution", "depthwise"])
def test_dual_path_by_hand(path: str) -> None:
    block = DualPath(4, path)
    for layer in block.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            nn.init.constant_(layer.bias, 2.0)  # type: ignore[arg-type]
    if block.scale is not None:
        nn.init.constant_(block.scale, 0.5)
    x = torch.randn(1, 4, 6, 6)
    assert torch.allclose(block(x), x + (2 + 2 if path == "convolution" else 2 + 1))


def test_channel_attention_by_hand() -> None:
    block = ChannelAttention(4)
    x = torch.randn(1, 4, 6, 6)
    for layer in block.gate:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    assert torch.allclose(block(x), x / 2)  # sigmoid(0)


def test_shape_survives_json() -> None:
    shape = replace(TINY, reading=BlockReading(activation="relu"), levels=(8, 5))
    assert VqganShape.from_json(json.loads(json.dumps(shape.to_json()))) == shape


@pytest.mark.parametrize(
    "fields", [{"size": 100}, {"channels": 2}, {"block": "other"}, {"encoder_widths": [8, 8]}, {"colour": 1},
               {"reading": {"colour": 1}}]
)  # fmt: skip
def test_impossible_shapes_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        VqganShape.from_json(fields)


def test_images_of_other_sizes_are_refused(network: Vqgan) -> None:
    with pytest.raises(SettingsError, match="100x64"):
        network.encode(torch.zeros(1, 1, 100, 64))


def test_file_gives_the_network_back(network: Vqgan, tmp_path: Path) -> None:
    save_vqgan(network, tmp_path / "v.safetensors", spacing_mm=0.42)
    loaded, header = load_vqgan(tmp_path / "v.safetensors")
    assert header["spacing_mm"] == 0.42
    assert header["codebook"] == codebook_fingerprint(network) == codebook_fingerprint(loaded)
    indices = torch.arange(4).reshape(1, 2, 2)
    assert torch.allclose(loaded.decode(indices), network.decode(indices), atol=0.02)
    assert isinstance(network.quantiser, Codebook)
    network.quantiser.vectors.data[0] += 1
    assert codebook_fingerprint(network) != header["codebook"]


def test_files_without_their_codebook_are_refused(network: Vqgan, tmp_path: Path) -> None:
    save_vqgan(network, tmp_path / "v.safetensors")
    stored = load_file(tmp_path / "v.safetensors")
    header = {"vqgan": json.dumps({"shape": TINY.to_json(), "codebook": codebook_fingerprint(network)})}
    others = {"none": {n: v for n, v in stored.items() if n != "quantiser.vectors"},
              "other": {**stored, "quantiser.vectors": stored["quantiser.vectors"] + 1}}  # fmt: skip
    for name, tensors in others.items():
        save_file(tensors, tmp_path / name, metadata=header)
        with pytest.raises(ReadError, match="codebook"):
            load_vqgan(tmp_path / name)
    (tmp_path / "no").write_bytes(b"nothing")
    with pytest.raises(ReadError, match="no VQGAN"):
        load_vqgan(tmp_path / "no")
