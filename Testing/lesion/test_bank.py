"""The shipped bank: whole, as its cards say, and refused when a byte is changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import label

from HiResMedSynthLib.errors import BankError
from HiResMedSynthLib.lesion.bank import SHIPPED, bank_bytes, load_bank
from HiResMedSynthLib.lesion.lesion import ALPHA_ONE, Lesion


def test_the_shipped_bank_holds_real_nodules_of_different_patients() -> None:
    bank = load_bank()
    nodules = [card for card in bank.cards.values() if card.type != "stone"]
    patients = [card.patient_id for card in nodules]
    assert len(patients) >= 60
    assert len(set(patients)) == len(patients)
    assert {card.type for card in nodules} == {"solid", "part-solid", "ground-glass", "calcified"}
    sizes = [card.diameter_mm for card in nodules]
    assert min(sizes) < 5
    assert max(sizes) > 20
    assert sum((card.spiculation or 0) >= 3 for card in nodules) >= 6
    assert SHIPPED.stat().st_size <= 4_000_000
    for card in nodules:
        assert card.origin == "real cut-out"
        assert card.licence == "CC BY 3.0"
        assert "Armato" in card.attribution
        assert int(str(card.patient_id).rsplit("-", 1)[1]) % 8 != 7  # kept back for measuring us


def test_the_shipped_stones_are_real_and_dense() -> None:
    bank = load_bank()
    stones = [card for card in bank.cards.values() if card.type == "stone"]
    assert len(stones) == 3
    for card in stones:
        lesion = bank.lesion(card.name)
        assert card.licence == "Apache-2.0"
        assert 3 <= card.diameter_mm <= 10
        assert lesion.intensity_hu[lesion.alpha > ALPHA_ONE * 0.8].mean() > 500


@pytest.mark.parametrize("name", sorted(load_bank().cards))
def test_each_lesion_is_one_object_that_tapers_to_nothing(name: str) -> None:
    lesion = load_bank().lesion(name)
    alpha = lesion.alpha / ALPHA_ONE
    pieces, count = label(alpha > 0.25, structure=np.ones((3, 3, 3)))
    assert np.bincount(pieces.ravel())[1:].max() >= 0.97 * (pieces > 0).sum(), f"{count} pieces"
    for axis in range(3):  # nowhere a flat cut: from voxel to voxel the section changes by less than this
        section = alpha.sum(axis=tuple(k for k in range(3) if k != axis))
        assert np.abs(np.diff(section)).max() <= 0.4 * section.max()
    volume = alpha.sum() * lesion.voxel_mm**3
    assert (6 * volume / np.pi) ** (1 / 3) == pytest.approx(lesion.card.diameter_mm, rel=0.25)


def test_a_changed_byte_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = tmp_path / "nodules.safetensors"
    content = bytearray(SHIPPED.read_bytes())
    content[-100] ^= 1
    changed.write_bytes(content)
    load_bank.cache_clear()
    monkeypatch.setattr("HiResMedSynthLib.lesion.bank.SHIPPED", changed)
    with pytest.raises(BankError, match="hash differs") as refused:
        load_bank()
    assert "Reinstall" in refused.value.remedy
    changed.unlink()
    with pytest.raises(BankError, match="can't be read"):
        load_bank()
    load_bank.cache_clear()


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_is_no_bank_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "own.safetensors"
    file.write_bytes(content)
    with pytest.raises(BankError):
        load_bank(file)


def test_a_written_bank_reads_back_the_same(tmp_path: Path) -> None:
    lesion = load_bank().lesion("solid-10mm-a")
    file = tmp_path / "own.safetensors"
    file.write_bytes(bank_bytes([lesion]))
    again = load_bank(file).lesion("solid-10mm-a")
    assert again.card == lesion.card
    assert np.array_equal(again.alpha, lesion.alpha)
    assert np.array_equal(again.intensity_hu, lesion.intensity_hu)


def test_a_card_with_a_field_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    file, known = tmp_path / "own.safetensors", b'\\"name\\": '
    packed = bank_bytes([load_bank().lesion("solid-10mm-a")])
    length = int.from_bytes(packed[:8], "little")
    header = packed[8 : 8 + length].replace(known, b'\\"colour\\": 1, ' + known).rstrip()
    file.write_bytes(len(header).to_bytes(8, "little") + header + packed[8 + length :])
    assert b"colour" in header
    with pytest.raises(BankError, match=r"no lesion bank \(ValidationError\)"):
        load_bank(file)


def test_an_unknown_entry_names_its_neighbours() -> None:
    with pytest.raises(BankError, match="no lesion 'solid-10mm-z'") as refused:
        load_bank().lesion("solid-10mm-z")
    assert "solid-10mm-a" in refused.value.remedy


def test_entries_are_chosen_by_type_and_size() -> None:
    bank, rng = load_bank(), np.random.default_rng(0)
    chosen = {bank.choose(types=("solid",), diameter_mm=10.0, rng=rng) for _ in range(60)}
    assert len(chosen) >= 3
    assert all(7.0 <= bank.cards[name].diameter_mm <= 14.0 for name in chosen)
    assert bank.cards[bank.choose(types=("ground-glass",), diameter_mm=60.0, rng=rng)].type == "ground-glass"
    with pytest.raises(BankError):
        bank.choose(types=("monster",), diameter_mm=5.0, rng=rng)


def test_any_lesion_on_a_film_is_one_that_a_film_shows() -> None:
    bank = load_bank()
    assert set(bank.types_for("any")) == {"solid", "part-solid", "ground-glass", "calcified"}
    assert bank.types_for("any", film=True) == ("solid", "calcified")
    assert bank.types_for("ground-glass", film=True) == ("ground-glass",)  # asked for by name, it is given


def test_a_lesion_cut_off_at_its_box_is_refused() -> None:
    card = load_bank().cards["solid-10mm-a"]
    full = np.full((4, 4, 4), ALPHA_ONE, np.uint16)
    for alpha in (full, np.zeros_like(full)):
        with pytest.raises(BankError):
            Lesion(intensity_hu=np.zeros((4, 4, 4), np.int16), alpha=alpha, voxel_mm=1.0, card=card)
