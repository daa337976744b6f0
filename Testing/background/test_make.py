"""New backgrounds, variants and rebuilt images: by seed, on the right grid, with what is odd said."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from HiResMedSynthLib import weights
from HiResMedSynthLib.background import memory
from HiResMedSynthLib.background.canvas import laid_back, place
from HiResMedSynthLib.background.domain_values import CHEST_FILM, LUNG_CT, image_of
from HiResMedSynthLib.background.find_model import BackgroundModel, find_background, load_background
from HiResMedSynthLib.background.make import DETAIL, MOST_TRIES, _stream, generate, known_regions, reconstruct
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.image import MedicalImage
from Testing.background.tiny_cascade import add_tiny, write_tiny
from Testing.export.cases import ct_image


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder / "models"))
        yield folder


@pytest.fixture(scope="module")
def films(store: Path) -> BackgroundModel:
    return add_tiny(store, name="our-films")


@pytest.fixture(scope="module")
def slices(store: Path) -> BackgroundModel:
    return add_tiny(store, name="our-ct", domain="lung-ct")


def film(rows: int = 300, columns: int = 200, **changes: Any) -> MedicalImage:
    """A smooth film of 12 bits, by default 330 x 220 mm."""
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    grey = 2000 + 1500 * np.sin(5 * x + 1) * np.cos(4 * y)
    image = MedicalImage(
        pixels=grey.astype(np.uint16), modality="DX", pixel_spacing_mm=(1.1, 1.1), spacing_source="header",
        bits_stored=12,
    )  # fmt: skip
    return replace(image, **changes)


def ct_slice(**changes: Any) -> MedicalImage:
    y, x = np.mgrid[-1:1:200j, -1:1:200j]
    hu = np.where(x**2 + y**2 < 0.8, -400 + 400 * np.sin(6 * x) + 150 * y, -1000)
    return ct_image(pixels=hu.astype(np.int16)[None], positions_lps_mm=np.zeros((1, 3)), **changes)


def reduced(pixels: np.ndarray) -> np.ndarray:
    """The means of 16 x 16 blocks, flat; cut off where the side is no multiple."""
    block = len(pixels) // 16
    return pixels[: 16 * block, : 16 * block].reshape(16, block, 16, block).mean(axis=(1, 3)).ravel()


# -- new images ------------------------------------------------------------------------------------------------------
def test_a_seed_makes_the_same_film_again(films: BackgroundModel) -> None:
    told: list[str] = []
    made = generate(films, seed=4, on_step=told.append)
    assert told == ["film", "detail-256", "detail-1024"]
    image = made.image
    assert (image.shape, image.pixels.dtype, image.modality) == ((1, 256, 256), np.uint16, "CR")
    assert image.pixel_spacing_mm == pytest.approx((1.68, 1.68))
    assert image.window is not None
    assert image.window.to_unit(image.pixels).std() > 0.02
    assert image.facts.burned_in_annotation == "NO"
    assert np.array_equal(generate(films, seed=4).image.pixels, image.pixels)
    other = generate(films, seed=5).image.pixels.astype(float)
    assert np.abs(other - image.pixels).mean() > 300
    assert not np.array_equal(
        generate(films, seed=4, sex="F").image.pixels, generate(films, seed=4, sex="M").image.pixels
    )


def test_large_seeds_do_not_meet_small_ones(films: BackgroundModel) -> None:
    """In words of 32 bits a large seed looks like a small one followed by the number of a stream."""
    assert len({_stream(seed, *more) for seed in (1, 2**32 + 1, 2**33 + 1) for more in ((0, 0), (1, 0), (0, 1))}) == 9
    assert _stream(5, DETAIL, 0) != _stream(5 + DETAIL * 2**32, 0, 0)


@pytest.mark.parametrize(("size", "stages"), [(64, 2), (50, 2), (100, 3), (400, 3)])
def test_another_size_keeps_the_millimetres(films: BackgroundModel, size: int, stages: int) -> None:
    told: list[str] = []
    made = generate(films, seed=1, size=size, on_step=told.append)
    assert len(told) == stages  # no more detail than is needed
    assert made.image.shape == (1, size, size)
    assert made.image.pixel_spacing_mm == pytest.approx((1.68 * 256 / size,) * 2)
    assert any("enlarged" in note for note in made.notes) == (size > 256)
    coarse = [reduced(one.image.pixels[0]) for one in (made, generate(films, seed=1))]
    assert size % 16 or np.corrcoef(*coarse)[0, 1] > 0.5  # the same anatomy at each size


def test_a_near_copy_is_drawn_again(films: BackgroundModel) -> None:
    asked: list[np.ndarray] = []

    def why(coarse: np.ndarray) -> str:
        asked.append(coarse)
        return "too near" if len(asked) < 3 else ""

    plain, made = generate(films, seed=2, size=32), generate(films, seed=2, size=32, why_copy=why)
    assert made.redrawn == ("too near", "too near")
    assert asked[0].shape == (16, 16)
    np.testing.assert_array_equal(asked[0], plain.coarse)
    assert not np.array_equal(asked[1], asked[0])
    np.testing.assert_array_equal(asked[2], made.coarse)
    np.testing.assert_array_equal(asked[3], made.finished)
    asked.clear()
    np.testing.assert_array_equal(generate(films, seed=2, size=32, why_copy=why).image.pixels, made.image.pixels)
    with pytest.raises(SettingsError, match=f"{MOST_TRIES} images in a row"):
        generate(films, seed=2, size=32, why_copy=lambda _: "too near")


def test_detail_can_make_a_near_copy(films: BackgroundModel) -> None:
    finished: list[np.ndarray] = []

    def why(film: np.ndarray) -> str:
        if len(film) > films.cascade.film_side:
            finished.append(film)
            return "too near" if len(finished) < 2 else ""
        return ""

    made = generate(films, seed=2, size=64, why_copy=why)
    assert made.redrawn == ("too near",)
    np.testing.assert_array_equal(finished[1], made.finished)


def test_a_ct_slice_is_in_hounsfield_units_and_warns(slices: BackgroundModel) -> None:
    made = generate(slices, seed=1)
    assert (made.image.units, made.image.modality, made.image.pixels.dtype) == ("HU", "CT", np.int16)
    assert made.image.pixels.min() >= -1200
    assert made.image.pixels.max() <= 600
    assert any("few patients" in note for note in made.notes)
    ends = image_of(LUNG_CT, np.array([[-1.0, 0.0, 1.0]], np.float32), spacing_mm=0.7)
    assert ends.pixels.tolist() == [[[-1200, -300, 600]]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sex": "X"}, "sex 'X'"),
        ({"strength": 1.5}, "strength"),
        ({"size": 10}, "size of 10"),
        ({"size": 9999}, "9999"),
    ],
)
def test_impossible_choices_are_refused(films: BackgroundModel, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        generate(films, seed=1, **wrong)


# -- variants --------------------------------------------------------------------------------------------------------
def test_regions_kept_are_connected_and_grow() -> None:
    shares = [0.0, 0.3, 0.7, 1.0]
    regions = [known_regions(5, 16, share)[0, 0].numpy() for share in shares]
    assert [int(region.sum()) for region in regions] == [round(share * 256) for share in shares]
    assert all((small <= large).all() for small, large in pairwise(regions))
    borders = np.abs(np.diff(regions[2], axis=0)).mean() + np.abs(np.diff(regions[2], axis=1)).mean()
    assert borders < 0.4  # scattered cells would give .84
    assert not np.array_equal(regions[1], known_regions(6, 16, 0.3)[0, 0].numpy())


def test_a_variant_covers_the_same_area_and_follows_the_strength(films: BackgroundModel) -> None:
    given = film()
    made = [generate(films, seed=3, like=given, strength=strength) for strength in (0.0, 0.5, 1.0)]
    for one in made:
        assert one.image.pixel_spacing_mm == pytest.approx((1.68, 1.68))
        assert one.image.shape == (1, round(330 / 1.68), round(220 / 1.68))
    pixels = [one.image.pixels.astype(float) for one in made]
    assert np.abs(pixels[1] - pixels[0]).mean() > 0
    assert np.abs(pixels[2] - pixels[1]).mean() > 0
    other = film(pixels=np.ascontiguousarray(given.pixels[:, ::-1]))
    assert not np.array_equal(generate(films, seed=3, like=other, strength=0.0).image.pixels, made[0].image.pixels)
    np.testing.assert_array_equal(generate(films, seed=3, like=other, strength=1.0).image.pixels, made[2].image.pixels)


def extent_mm(image: MedicalImage) -> tuple[float, float]:
    assert image.pixel_spacing_mm is not None
    return image.rows * image.pixel_spacing_mm[0], image.columns * image.pixel_spacing_mm[1]


@pytest.mark.parametrize("size", [256, 64, 300])
def test_a_variant_of_a_film_larger_than_the_canvas_keeps_its_extent(films: BackgroundModel, size: int) -> None:
    given = film(pixel_spacing_mm=(2.0, 2.0), spacing_source="assumed")  # 600 x 400 mm on 430
    made = generate(films, seed=3, like=given, size=size)
    assert extent_mm(made.image) == pytest.approx((600, 400), abs=600 / size)
    assert made.image.spacing_source == "assumed"
    assert generate(films, seed=3, like=film()).image.spacing_source == "header"


def test_a_variant_of_a_ct_slice_keeps_its_extent(slices: BackgroundModel) -> None:
    given = ct_slice(pixel_spacing_mm=(0.6, 0.6))
    assert extent_mm(generate(slices, seed=1, like=given, strength=0.3).image) == pytest.approx((120, 120), abs=0.1)


def test_a_variant_of_a_film_of_unknown_spacing_has_none(films: BackgroundModel) -> None:
    made = generate(films, seed=3, like=film(pixel_spacing_mm=None, spacing_source="unknown"), size=64)
    assert (made.image.pixel_spacing_mm, made.image.spacing_source) == (None, "unknown")
    assert any("unknown" in note for note in made.notes)


def test_a_variant_of_a_training_film_is_not_refused_but_told(films: BackgroundModel) -> None:
    made = generate(films, seed=3, like=film(), strength=0.5, why_copy=lambda _: "too near")
    assert made.redrawn == ()
    assert any("learned from" in note for note in made.notes)


# -- rebuilt images --------------------------------------------------------------------------------------------------
def test_an_image_is_rebuilt_on_its_own_grid_and_grey_range(films: BackgroundModel) -> None:
    pixels = film().pixels[0].copy()
    pixels[:, :20] = 4000
    given = film(pixels=pixels, padding_value=4000.0)
    made = reconstruct(films, given, seed=1).image
    assert (made.shape, made.pixels.dtype, made.pixel_spacing_mm) == (given.shape, given.pixels.dtype, (1.1, 1.1))
    assert (made.pixels[:, :, :20] == 4000).all()
    low, high = np.percentile(given.pixels[:, :, 20:], [0.5, 99.5])
    assert made.pixels[:, :, 20:].min() >= low - 10
    assert made.pixels[:, :, 20:].max() <= high + 10
    np.testing.assert_array_equal(reconstruct(films, given, seed=1).image.pixels, made.pixels)
    assert not np.array_equal(reconstruct(films, given, seed=2).image.pixels, made.pixels)


def test_a_film_of_known_codes_takes_a_third_of_the_evaluations(
    films: BackgroundModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    flow = films.cascade.first.flow
    walk = flow.forward

    def counted(noisy: Any, time: Any, **told: Any) -> Any:
        asked.append(float(time[0]))
        return walk(noisy, time, **told)

    monkeypatch.setattr(flow, "forward", counted)
    generate(films, seed=1)
    new, asked[:] = list(asked), []
    reconstruct(films, film(), seed=1)
    assert (len(new), len(asked)) == (39, 13)
    assert (max(new), max(asked)) == pytest.approx((0.97, 0.96))
    assert np.diff(asked[::2]).min() < 0.05 < np.diff(asked[::2]).max()  # late steps are shorter than early ones


def test_bright_and_dark_films_are_the_same_film(films: BackgroundModel) -> None:
    given = film()
    inverse = film(pixels=4095 - given.pixels[0], photometric="MONOCHROME1")
    made, other = (reconstruct(films, one).image.pixels.astype(int) for one in (given, inverse))
    assert np.abs(4095 - other - made).max() <= 1


# -- on the canvas ---------------------------------------------------------------------------------------------------
def on_canvas(image: MedicalImage, values: Any = CHEST_FILM) -> Any:
    return place(image, values=values, side=256, spacing_mm=1.68)


def test_an_image_is_laid_by_its_size_in_mm_and_back() -> None:
    given = film(rows=300, columns=500, pixel_spacing_mm=(1.0, 0.5))
    placed = on_canvas(given)
    assert placed.box == ((256 - 179) // 2, (256 - 149) // 2, 179, 149)
    assert placed.inside.sum() == 179 * 149
    assert placed.notes == ()
    back = laid_back(placed.film, placed, given).pixels.astype(float)
    assert np.abs(back - given.pixels).max() < 60  # of 3,000: percentiles cut, Lanczos


def test_odd_images_are_told() -> None:
    assert any("unknown" in n for n in on_canvas(film(pixel_spacing_mm=None, spacing_source="unknown")).notes)
    assert any("shrunk" in n for n in on_canvas(film(pixel_spacing_mm=(2.0, 2.0))).notes)
    assert any("no whole chest" in n for n in on_canvas(film(pixel_spacing_mm=(0.4, 0.4))).notes)
    assert any("CT slice, but" in n for n in on_canvas(ct_slice()).notes)
    assert any("chest CT slices only" in n for n in on_canvas(film(), LUNG_CT).notes)
    assert not any("likeness" in n for n in (*on_canvas(ct_slice(), LUNG_CT).notes, *on_canvas(film()).notes))


def test_impossible_images_are_refused() -> None:
    wrong = {
        "slices": ct_image(),
        "too small": film(rows=20),
        "blank": film(pixels=np.full((60, 60), 7, np.uint16)),
        "padding": film(pixels=np.full((60, 60), 7, np.uint16), padding_value=7.0),
        "pixels only": film(pixel_spacing_mm=(0.01, 0.01)),
    }
    for words, image in wrong.items():
        with pytest.raises(SettingsError, match=words):
            on_canvas(image)


def test_a_ct_slice_fills_the_canvas_in_its_window_front_up() -> None:
    given = ct_slice()
    placed = on_canvas(given, LUNG_CT)
    assert placed.box == (0, 0, 256, 256)
    assert (placed.low, placed.high) == (-1200, 600)
    turned = replace(
        given, pixels=given.pixels[:, ::-1, ::-1], directions_lps=np.array([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    )
    np.testing.assert_allclose(on_canvas(turned, LUNG_CT).film, placed.film, atol=1e-5)
    back = laid_back(placed.film, placed, turned)
    assert np.abs(back.pixels[0, 50:150, 60:140].astype(float) - turned.pixels[0, 50:150, 60:140]).max() < 40
    padded = given.pixels.copy()
    padded[0, :30, :30] = -2048
    assert not on_canvas(replace(given, pixels=padded), LUNG_CT).inside[:30, :30].any()


# -- what is missing -------------------------------------------------------------------------------------------------
def test_too_little_memory_is_told_before_the_work(films: BackgroundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        raise AssertionError("the work began")

    needed = [memory.needed_bytes(films.cascade, name) for name in films.cascade.stages]
    assert needed == sorted(needed)
    assert needed[2] > 10 * needed[1]
    monkeypatch.setattr(memory, "available_bytes", lambda: memory.KEPT_FREE + needed[1])
    with pytest.raises(SettingsError, match=r"MiB are free.*--size 64"):
        generate(films, seed=1, on_step=nothing)
    with pytest.raises(SettingsError, match="MiB are free"):
        reconstruct(films, film(), on_step=nothing)
    assert generate(films, seed=1, size=64).image.rows == 64
    monkeypatch.setattr(memory, "available_bytes", lambda: 0)
    with pytest.raises(SettingsError, match="Close other programs"):
        generate(films, seed=1, size=64)


def test_a_model_is_found_by_name_or_domain(store: Path, films: BackgroundModel, slices: BackgroundModel) -> None:
    assert find_background("our-ct").card.name == "our-ct"
    with pytest.raises(weights.ModelError, match="makes lung-ct, not cxr"):
        find_background("our-ct", "cxr")
    with pytest.raises(weights.ModelError, match="makes kub backgrounds") as refused:
        find_background(None, "kub")
    assert "hiresmedsynth models add" in refused.value.remedy
    assert "Training.release_model" in refused.value.remedy
    if not any(model.shipped for model in weights.models("background")):
        assert find_background(None, "lung-ct").card.name == "our-ct"
        assert find_background().card.name == "our-films"


def test_damaged_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "models"))
    added = weights.add(write_tiny(tmp_path, name="kub", domain="kub"))
    content = bytearray(added.path.read_bytes())
    content[-5] ^= 1
    added.path.write_bytes(content)
    for name, domain in (("kub", None), (None, "kub")):
        with pytest.raises(weights.ModelError, match="damaged or changed"):
            find_background(name, domain)
    weights.add(write_tiny(tmp_path, name="kub-2", domain="kub"))
    notes: list[str] = []
    assert find_background(None, "kub", on_note=notes.append).card.name == "kub-2"
    assert len(notes) == 1
    assert "'kub' is damaged or changed" in notes[0]
    card = weights.Card(name="empty", kind="background", data="x", licence="x", attribution="x")
    weights.write_model(tmp_path / "empty.safetensors", {"a": np.zeros(3, np.float32)}, card)
    weights.add(tmp_path / "empty.safetensors")
    with pytest.raises(ReadError, match="no film cascade"):
        load_background(find_background("empty"))
