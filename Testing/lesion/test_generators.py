"""Named generators: the same stream, the same lesion; models found, checked and refused; samples by themselves."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from HiResMedSynthLib import weights
from HiResMedSynthLib.errors import BankError, SettingsError
from HiResMedSynthLib.lesion import generators
from HiResMedSynthLib.lesion.bank import load_bank
from HiResMedSynthLib.lesion.deform import draw_deformation
from HiResMedSynthLib.lesion.generators import Drawn, Wish, generator_for
from HiResMedSynthLib.lesion.learned import LearnedGenerator
from HiResMedSynthLib.lesion.samples import draw_sample
from HiResMedSynthLib.lesion.trained import load_trained, own_bank, write_trained
from Testing.lesion.small_models import CARD_TEXTS, add_singan, ball, model_card, small_singan

WISH = Wish(type="any", diameter_mm=10.0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two models: of a solid nodule, and of a slice of a part-solid one."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(weights.STORE_VARIABLE, str(folder))
        add_singan(folder, "mine")
        add_singan(folder, "slice", "part-solid-14mm-a", flat=True)
    return folder


@pytest.fixture(autouse=True)
def use_store(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(store))


def draw(name: str, seed: int = 0, wish: Wish = WISH, **model: str) -> Drawn:
    return generator_for(name, **model).draw(wish, load_bank(), np.random.default_rng(seed))  # type: ignore[arg-type]


def test_deform_draws_what_was_drawn_before_generators_had_names() -> None:
    bank, rng = load_bank(), np.random.default_rng(4)
    entry = bank.choose(types=bank.types_for("any"), diameter_mm=10.0, rng=rng)
    expected = draw_deformation(rng)
    drawn = draw("deform", 4)
    assert drawn.lesion.card.name == entry
    assert drawn.deformation.record() == expected.record()
    assert drawn.model == {}


def test_a_singan_sample_is_new_repeatable_and_only_turned() -> None:
    one, again, other = (draw("singan", seed, model="mine") for seed in (1, 1, 2))
    assert np.array_equal(one.lesion.alpha, again.lesion.alpha)
    assert not np.array_equal(one.lesion.alpha, other.lesion.alpha)
    assert not one.deformation.bend.any()
    assert one.deformation.stretch == (1, 1, 1)
    assert one.model == {"name": "singan", "model": "mine", "model_sha256": weights.find("mine").card.sha256}
    assert one.lesion.card.type == "solid"
    assert one.lesion.card.origin == "SinGAN sample of a real lesion"


def test_wishes_choose_the_model_by_type_and_source() -> None:
    assert draw("singan", wish=dataclasses.replace(WISH, type="part-solid")).model["model"] == "slice"
    assert draw("singan", wish=dataclasses.replace(WISH, entry="solid-10mm-a")).model["model"] == "mine"
    # naming the model that would be chosen changes nothing: a pinned case is drawn again bit for bit
    free = draw("singan", 3, dataclasses.replace(WISH, type="solid"))
    named = draw("singan", 3, dataclasses.replace(WISH, type="solid"), model="mine")
    assert np.array_equal(free.lesion.alpha, named.lesion.alpha)
    for wish in ({"type": "calcified"}, {"entry": "solid-09mm-a"}, {"stone": True}):
        with pytest.raises(BankError, match="no SinGAN model"):
            draw("singan", wish=dataclasses.replace(WISH, **wish))  # type: ignore[arg-type]


def test_a_model_of_a_slice_gives_solid_lesions_seen_from_above() -> None:
    drawn = draw("singan", 5, model="slice")
    assert drawn.deformation.tilt_degrees == (0, 0)
    depth, rows, columns = drawn.lesion.alpha.any(axis=(1, 2)).sum(), *drawn.lesion.alpha.shape[1:]
    assert depth > 0.3 * min(rows, columns)


def test_flips_and_rotation_are_as_asked() -> None:
    for name in ("deform", "singan"):
        wish = dataclasses.replace(WISH, rotation_degrees=12.0, flips=False)
        drawn = [draw(name, seed, wish) for seed in range(4)]
        assert {d.deformation.flips for d in drawn} == {(False, False, False)}
        assert {d.deformation.rotation_degrees for d in drawn} == {12.0}


def test_no_diversity_gives_the_source_back() -> None:
    still = dataclasses.replace(WISH, diversity=0.0)
    assert not draw("deform", wish=still).deformation.bend.any()
    one, other = (draw("singan", seed, still, model="mine").lesion.alpha for seed in (0, 1))
    assert np.abs(one.astype(int) - other).mean() < 0.02 * 65535


def test_what_cant_be_generated_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for use in (lambda: generator_for("magic"), lambda: generator_for("deform", model="mine")):
        with pytest.raises(SettingsError):
            use()
    with pytest.raises(weights.ModelError, match="isn't the one"):
        generator_for("singan", model="mine", sha256="0" * 64)
    with pytest.raises(weights.ModelError, match="draws variants of one lesion; needed: one that draws lesions"):
        generator_for("learned", model="mine")
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path))
    with pytest.raises(weights.ModelError, match="no model for the generator 'singan'") as refused:
        generator_for("singan")
    assert "lesion train" in refused.value.remedy


def damage(model: weights.Model) -> None:
    content = bytearray(model.path.read_bytes())
    content[-1] ^= 1
    model.path.write_bytes(content)


def test_a_damaged_model_is_passed_over_where_none_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    bad, good = add_singan(tmp_path, "a-bad"), add_singan(tmp_path, "b-good")
    damage(bad)
    assert draw("singan", wish=dataclasses.replace(WISH, type="solid")).model["model"] == "b-good"
    with pytest.raises(weights.ModelError, match="hash differs"):
        generator_for("singan", model="a-bad")
    damage(good)
    with pytest.raises(weights.ModelError, match="hash differs"):
        generator_for("singan")


def test_the_newest_learned_model_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    monkeypatch.setattr(generators, "LEARNED_KIND", "lesion-flow-test")  # none of the release is of it
    hashes = {}
    for name, created in (("a", "2025-01-01"), ("b", "2026-03-01"), ("c", "2026-01-01")):
        card = weights.Card(name=name, kind="lesion-flow-test", created=created, **CARD_TEXTS)
        weights.write_model(tmp_path / f"{name}.safetensors", {"a": np.zeros(1, np.float32)}, card)
        hashes[name] = weights.add(tmp_path / f"{name}.safetensors").card.sha256
    assert generator_for("learned").model.card.name == "b"  # type: ignore[attr-defined]
    assert generator_for("learned", sha256=hashes["c"]).model.card.name == "c"  # type: ignore[attr-defined]


def test_samples_of_a_synthetic_source_say_so() -> None:
    trained = load_trained(weights.find("mine"))
    made = dataclasses.replace(trained.source.card, origin="cut out of a synthetic image")
    told = dataclasses.replace(trained, source=dataclasses.replace(trained.source, card=made))
    assert "synthetic" in told.sample(np.random.default_rng(0)).card.origin


def test_the_learned_generator_gets_type_size_and_spiculation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path))
    file = tmp_path / "made.safetensors"
    weights.write_model(
        file, {"a": np.zeros(1, np.float32)}, weights.Card(name="many", kind="lesion-flow", **CARD_TEXTS)
    )
    weights.add(file)
    asked: list[tuple[object, ...]] = []

    def sample(kind: str, diameter_mm: float, *, rng: np.random.Generator, count: int, **ratings: float) -> list:
        asked.append((kind, diameter_mm, ratings.get("spiculation")))
        return [ball(diameter_mm)] * count

    inspect.signature(LearnedGenerator.sample).bind(None, "solid", 7.0, rng=0, count=1, spiculation=1.0, lobulation=1.0)
    monkeypatch.setattr(generators, "_learned", lambda *_: SimpleNamespace(sample=sample))
    wish = Wish(type="calcified", diameter_mm=7.0, spiculation=4.0)
    drawn = draw("learned", wish=wish, model="many")
    assert asked == [("calcified", 7.0, 4.0)]
    assert drawn.model["model"] == "many"
    assert not drawn.deformation.bend.any()
    draw("learned", wish=WISH)
    assert asked[1][0] in ("solid", "part-solid", "ground-glass", "calcified")
    for wrong in ({"stone": True}, {"type": "stone"}, {"entry": "solid-10mm-a"}):
        with pytest.raises(SettingsError):
            draw("learned", wish=dataclasses.replace(WISH, **wrong))  # type: ignore[arg-type]


def test_a_trained_lesion_is_a_bank_entry_under_its_models_name() -> None:
    source, own = load_bank().lesion("solid-10mm-a"), load_bank().with_own(own_bank(("mine",))).lesion("mine")
    assert np.array_equal(source.alpha, own.alpha)
    assert np.array_equal(source.intensity_hu, own.intensity_hu)
    assert own.card == dataclasses.replace(source.card, name="mine")
    assert load_trained(weights.find("mine")).voxel_mm == pytest.approx(0.5, rel=0.6)


def test_an_entry_of_another_version_or_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    lesion = ball()
    whole = tmp_path / "whole.safetensors"
    write_trained(whole, small_singan(lesion), lesion, model_card("old", lesion))
    from safetensors import safe_open

    with safe_open(whole, framework="np") as file:
        metadata = dict(file.metadata())
    entry = json.loads(metadata["source"])
    for name, changed in (("old", {**entry, "format": "hiresmedsynth-lesion-bank-9"}), ("none", None)):
        told = {key: value for key, value in metadata.items() if key not in ("card", "source")}
        told |= {} if changed is None else {"source": json.dumps(changed)}
        file = tmp_path / f"{name}.safetensors"
        weights.write_model(file, load_file(whole), model_card(name, lesion), metadata=told)
        weights.add(file)
        with pytest.raises(BankError, match="another version" if changed else "holds no lesion") as refused:
            own_bank((name,))
        assert "lesion train" in refused.value.remedy


def test_a_sample_has_the_size_and_contrast_that_were_asked_for() -> None:
    for name in ("deform", "singan"):
        sample = draw_sample(
            generator_for(name),
            dataclasses.replace(WISH, type="solid"),
            load_bank(),
            np.random.default_rng(2),
            size_mm=(9.0, 11.0),
            contrast_hu=(500.0, 520.0),
        )
        assert 9 <= sample.diameter_mm <= 11
        volume = float(sample.alpha.sum()) * sample.voxel_mm**3
        assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(sample.diameter_mm, rel=0.05)
        measured = sample.hu[sample.alpha >= 0.5].mean() + 860
        assert 499 <= measured <= 521
        assert measured == pytest.approx(sample.contrast_hu, abs=1)
        assert (sample.hu[sample.alpha == 0] == -860).all()


def test_the_standard_form_of_a_sample_is_the_sample() -> None:
    sample = draw_sample(
        generator_for("deform"), WISH, load_bank(), np.random.default_rng(1), size_mm=(12.0, 12.0), voxel_mm=0.6
    )
    values, voxel_mm = sample.grid.values, sample.grid.voxel_mm
    assert values.shape == (2, 32, 32, 32)
    assert values[1].sum() * voxel_mm**3 == pytest.approx(sample.alpha.sum() * 0.6**3, rel=0.03)
    used = np.argwhere(values[1] > 0.05)
    assert 26 <= (np.ptp(used, axis=0) + 1).max() <= 30
    assert np.abs(used.min(axis=0) + used.max(axis=0) - 31).max() <= 2
    shell = values[1].copy()
    shell[1:-1, 1:-1, 1:-1] = 0
    assert not shell.any()
