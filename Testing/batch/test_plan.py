"""The plan: any case by itself, exact shares, seeds that never meet, nobody on two sides."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from HiResMedSynthLib.batch.backgrounds import Background, find_backgrounds, identity_hash, read_source
from HiResMedSynthLib.batch.plan import Plan
from HiResMedSynthLib.batch.spec import Backgrounds, Cases, Output, Spec
from HiResMedSynthLib.batch.split import donor_of
from HiResMedSynthLib.errors import ReadError, SettingsError
from HiResMedSynthLib.lesion.bank import load_bank
from Testing.slices import DX, write_slice

SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def plan(patients: int, *, names: tuple[str, ...] = (), cases: Cases | None = None, split: object = None) -> Plan:
    """A plan over two slices of each of so many patients, that nobody reads."""
    whose = [identity_hash("patient", name) for name in (*names, *(f"P{k}" for k in range(patients - len(names))))]
    backgrounds = tuple(
        Background(patient=one, name=f"{k}", slice_index=index) for k, one in enumerate(whose) for index in range(2)
    )
    output = Output.model_validate({"split": split})
    return Plan(
        Spec(backgrounds=Backgrounds(files=("x",)), cases=cases or Cases(), output=output), backgrounds, load_bank()
    )


def test_a_case_is_the_same_alone_later_and_in_a_larger_data_set() -> None:
    small, large = plan(30, cases=Cases(count=40)), plan(30, cases=Cases(count=4000))
    assert [small.case(n) for n in (40, 1, 17)] == [large.case(n) for n in (40, 1, 17)]
    assert small.sha256 == large.sha256


def test_shares_and_negatives_hold_exactly() -> None:
    made = plan(50, cases=Cases(count=1000, negatives=0.25))
    cases = [made.case(n) for n in range(1, 1001)]
    assert Counter(case.side for case in cases) == {"train": 800, "val": 100, "test": 100}
    assert sum(case.negative for case in cases) == 250
    by_patient = Counter(made.backgrounds[case.backgrounds[0]].patient for case in cases if case.side == "train")
    assert max(by_patient.values()) - min(by_patient.values()) <= 1  # no patient weighs more than another


def test_no_patient_and_no_donor_stands_on_two_sides() -> None:
    made = plan(40, split=SHARES)
    donors = {side: {donor_of(card) for card in made.bank_of(side).cards.values()} for side in made.split.shares}
    patients: dict[str, set[str]] = {side: set() for side in made.split.shares}
    for number in range(1, 101):
        case = made.case(number)
        patients[case.side] |= {made.backgrounds[index].patient for index in case.backgrounds}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        assert donors[first] and not donors[first] & donors[second]  # type: ignore[index]
        assert patients[first] and not patients[first] & patients[second]
    for side in made.split.shares:  # each side has lesions of each type that has as many donors
        assert {"solid", "part-solid", "ground-glass", "calcified"} <= {
            c.type for c in made.bank_of(side).cards.values()
        }


def test_a_patient_whose_lesion_is_in_the_bank_stands_on_its_side() -> None:
    named = sorted({card.patient_id for card in load_bank().cards.values() if card.patient_id})
    made = plan(60, names=tuple(named[:20]), split=SHARES)
    for name in named[:20]:
        key = identity_hash("patient", name)
        assert made.split.patients[key] == made.split.donors[key]


def test_seeds_don_t_meet_within_or_between_data_sets() -> None:
    seeds = [plan(3, cases=Cases(count=1000, seed=seed)).case for seed in (0, 1, 2**63 - 1)]
    drawn = [case(number).seed for case in seeds for number in range(1, 1001)]
    assert len(set(drawn)) == len(drawn)
    assert max(drawn) < 2**63
    assert max(drawn) > 2**62


def test_few_patients_get_fewer_sides_and_a_note_unless_a_split_was_asked_for() -> None:
    alone = plan(1)
    assert (list(alone.split.shares), alone.bank_of("train").sha256) == (["train"], load_bank().sha256)
    assert "no val and no test side" in alone.split.note
    with pytest.raises(SettingsError, match="3 sides need as many patients, the backgrounds come from 2"):
        plan(2, split=SHARES)


def test_generators_whose_donors_can_t_be_kept_apart_need_one_side() -> None:
    with pytest.raises(SettingsError, match=r"cases\.generator"):
        plan(10, cases=Cases(generator="learned"))
    assert plan(10, cases=Cases(generator="learned"), split={"train": 1}).case(1).requests[0].generator == "learned"


def test_weights_and_ranges_are_followed() -> None:
    cases = Cases.model_validate(
        {
            "count": 1000, "lesions": {"1": 3, "4": 1}, "types": {"solid": 9, "calcified": 1}, "zones": {"left": 1},
            "size_mm": [{"range": [4, 8], "weight": 3}, {"range": [20, 30], "weight": 1}], "cnr": [5, 9],
        }
    )  # fmt: skip
    drawn = [made.requests for made in map(plan(9, cases=cases).case, range(1, 1001))]
    assert {len(requests) for requests in drawn} == {1, 4}
    assert 0.70 < sum(len(requests) == 1 for requests in drawn) / 1000 < 0.80
    lesions = [one for requests in drawn for one in requests]
    assert 0.88 < sum(one.type == "solid" for one in lesions) / len(lesions) < 0.92
    assert 0.72 < sum(one.size_mm == (4, 8) for one in lesions) / len(lesions) < 0.78
    assert {(one.zone, one.cnr) for one in lesions} == {("left", (5, 9))}


def test_whose_an_image_is(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").symlink_to(scans, target_is_directory=True)
    found = find_backgrounds(Backgrounds(files=("scans/scan*",), slices="each"), tmp_path)
    assert [one.slice_index for one in found] == [0, 1, 0, 1, 0, 1]
    for files in (("scans/**",), ("scans/**/*.dcm", "scans/scan*")):  # each file once
        assert find_backgrounds(Backgrounds(files=files, slices="each"), tmp_path) == found, files
    alone = find_backgrounds(Backgrounds(files=("scans/scan0/*.dcm",), slices="each"), tmp_path)
    assert [one.slice_index for one in alone] == [None, None]
    assert {one.patient for one in alone} == {found[0].patient}  # a file of a series belongs to the series' patient
    assert len({one.patient for one in found}) == 3
    (tmp_path / "patients.csv").write_text("file,patient\nscans/scan0,same\nscans/scan1,same\n")
    table = find_backgrounds(Backgrounds(files=("scans/scan*",)), tmp_path)
    assert table[0].patient == table[1].patient != table[2].patient
    assert not any("MARKER" in one.patient for one in (*found, *table))
    (tmp_path / "CT [thorax]").symlink_to(scans / "scan0", target_is_directory=True)
    assert len(find_backgrounds(Backgrounds(files=("CT [thorax]",)), tmp_path)) == 1
    with pytest.raises(SettingsError, match=r"backgrounds\.files: 'nothing/\*' names nothing"):
        find_backgrounds(Backgrounds(files=("nothing/*",)), tmp_path)


def test_a_table_of_patients_reaches_into_folders_and_leaves_nobody_out(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.new("L", (8, 8)).save(tmp_path / "films" / name)
    wanted, table = Backgrounds(files=("films",)), tmp_path / "patients.csv"
    table.write_text("file,patient\nfilms/a.png,one\nfilms/b.png,one\nfilms/c.png,two\n")
    first, second, third = (found.patient for found in find_backgrounds(wanted, tmp_path))
    assert first == second == identity_hash("patient", "one")
    assert third == identity_hash("patient", "two")
    for wrong in ("films/a.png,one\nfilms/b.png,one\n", "film/x.png,one\n"):  # incomplete; of another place
        table.write_text(f"file,patient\n{wrong}")
        with pytest.raises(ReadError, match=r"patients\.csv leaves this image out.*films/"):
            find_backgrounds(wanted, tmp_path)
    table.write_text("file,spacing_mm\nfilms/a.png,0.2\n")  # a table of spacings names no patients, and needn't
    assert [found.spacing_mm for found in find_backgrounds(wanted, tmp_path)] == [(0.2, 0.2), None, None]


def test_one_picture_under_two_names_has_one_owner_where_nobody_knows_whose_it_is(scans: Path, tmp_path: Path) -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels).save(tmp_path / "b.tiff")  # another file, the same pixels
    Image.fromarray(pixels.T).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes(b"\x89PNG\r\n\x1a\n")  # damaged: told when a case is to be put into it
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        for file in (scans / "scan0").glob("*.dcm"):
            data = pydicom.dcmread(file)
            data.PatientID, data.SeriesInstanceUID = "", f"1.2.3.{len(name)}"
            data.save_as(tmp_path / name / file.name)
    found = find_backgrounds(Backgrounds(files=("*.*", "first", "second"), slices="each"), tmp_path)
    whose = [one.patient for one in found]
    assert whose[0] == whose[1]  # a.png, b.tiff
    assert len(set(whose[4:])) == 1  # two series of two slices
    assert len(set(whose)) == 4
    split = Plan(Spec(backgrounds=Backgrounds(files=("x",))), found, load_bank()).split
    assert len(split.patients) == 4


def test_films_of_one_series_are_backgrounds_of_their_own_each_of_its_patient(tmp_path: Path) -> None:
    """Where UIDs were emptied or shared, one series holds films of many patients."""
    shown = {"films/a.dcm": ("P0", 5), "films/b.dcm": ("P1", 6), "films/c.dcm": ("P0", 7), "films/d.dcm": ("", 8),
             "films/e.dcm": ("", 9)}  # fmt: skip
    for name, (patient, value) in shown.items():
        stored = np.full((8, 8), value, np.uint16)
        write_slice(tmp_path / name, stored, modality="CR", sop_class=DX, PatientID=patient, SeriesInstanceUID="")
    (tmp_path / "again.dcm").write_bytes((tmp_path / "films" / "e.dcm").read_bytes())
    wanted = Backgrounds(files=("films", "again.dcm"), slices="whole")
    seen: list[tuple[int, int]] = []
    found = find_backgrounds(wanted, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert [one.name for one in found] == [*shown, "again.dcm"]
    assert [int(read_source(one).pixels.max()) for one in found] == [5, 6, 7, 8, 9, 9]
    first, second, third, nameless, other, again = (one.patient for one in found)
    assert first == third == identity_hash("patient", "P0")
    assert second == identity_hash("patient", "P1")
    assert other == again  # the same pixels
    assert len({first, second, nameless, other}) == 4
    assert seen == sorted(seen)
    assert (seen[0], seen[-1], seen.count((6, 6))) == ((0, 6), (6, 6), 1)
    table = tmp_path / "patients.csv"
    table.write_text("file,patient\nfilms,all\nfilms/b.dcm,two\nagain.dcm,three\n")
    whose = [one.patient for one in find_backgrounds(wanted, tmp_path)]
    assert whose == [identity_hash("patient", name) for name in ("all", "two", "all", "all", "all", "three")]
    table.write_text("file,patient\nfilms/d.dcm,two\nagain.dcm,three\n")
    with pytest.raises(ReadError, match=r"patients\.csv leaves this image out.*films/e\.dcm"):
        find_backgrounds(wanted, tmp_path)


def test_nameless_films_of_a_real_series_stay_together(tmp_path: Path) -> None:
    """A front and a side view of one patient must not stand on two sides."""
    for number in (1, 2):
        stored = np.full((8, 8), number, np.uint16)
        write_slice(tmp_path / f"films/{number}.dcm", stored, modality="CR", sop_class=DX, SeriesInstanceUID="1.2.3")
    one, other = find_backgrounds(Backgrounds(files=("films",)), tmp_path)
    assert one.patient == other.patient


def test_a_spacing_is_for_files_that_do_not_tell_theirs(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").symlink_to(scans, target_is_directory=True)
    Image.new("L", (8, 8)).save(tmp_path / "film.png")
    wanted = Backgrounds(files=("film.png", "scans/scan0"), spacing_mm=0.2)
    film, scan = (read_source(found) for found in find_backgrounds(wanted, tmp_path))
    assert (film.pixel_spacing_mm, film.spacing_source) == ((0.2, 0.2), "assumed")
    assert (scan.pixel_spacing_mm, scan.spacing_source) == ((3.367, 3.367), "header")


def test_a_copy_without_a_patient_belongs_to_the_patient_of_its_original(tmp_path: Path) -> None:
    for k in range(3):
        stored = np.random.default_rng(k).integers(0, 4000, (24, 20)).astype(np.uint16)
        write_slice(tmp_path / f"{k}.dcm", stored, modality="DX", sop_class=DX, PatientID=f"P{k}")
    copied = np.random.default_rng(1).integers(0, 4000, (24, 20)).astype(np.uint16)
    write_slice(tmp_path / "copy.dcm", copied, modality="DX", sop_class=DX, PatientID=None)
    write_slice(tmp_path / "other.dcm", copied[::-1].copy(), modality="DX", sop_class=DX, PatientID=None)
    found = find_backgrounds(Backgrounds(files=("*.dcm",)), tmp_path)
    owners = {background.name: background.patient for background in found}
    assert owners["copy.dcm"] == owners["1.dcm"]
    assert len(set(owners.values())) == 4
