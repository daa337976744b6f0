"""`hiresmedsynth evaluate` from folders to the report, as a user meets it."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from HiResMedSynthLib.evaluation.comparable import SharedPatientError
from HiResMedSynthLib.evaluation.evaluate_sets import EvaluationSettings, evaluate
from HiResMedSynthLib.evaluation.findings import (
    BEYOND,
    DIFFERS,
    NO_DIFFERENCE,
    NO_POWER,
    NOT_MEASURED,
    TOO_FEW,
    WITHIN,
    Row,
    shown,
)
from HiResMedSynthLib.evaluation.report import HTML_FILE, JSON_FILE
from HiResMedSynthLib.evaluation.report_plots import RIGHT, WIDTH, distances_plot
from HiResMedSynthLib.evaluation.set_distances import Pool
from HiResMedSynthLib.evaluation.set_rows import distance_rows, statistic_rows
from HiResMedSynthLib.image import Window
from Testing.evaluation.films import film, put_films
from Testing.evaluation.test_image_sets import case, dicom_films
from Testing.test_architecture import heavy_modules_after
from Testing.test_cli import run

REAL, MADE = range(24), range(100, 112)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "evaluation-cache"  # one for this file: the films are the same
    monkeypatch.setenv("HIRESMEDSYNTH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """real/ and made/ of one kind, soft/ like made/ but blurred."""
    folder = tmp_path_factory.mktemp("films")
    put_films(folder / "real", REAL)
    put_films(folder / "made", MADE, name="made{}.png")
    put_films(folder / "soft", MADE, name="made{}.png", blur=0.8)
    return folder


def figures(report: Path) -> dict[str, dict[str, Any]]:
    """The figures of a report by name; those of other families than "sets" under family: name."""
    rows = json.loads((report / JSON_FILE).read_text())["figures"]
    return {row["name"] if row["family"] == "sets" else f"{row['family']}: {row['name']}": row for row in rows}


def of(rows: dict[str, dict[str, Any]], start: str) -> dict[str, Any]:
    return next(row for name, row in rows.items() if name.startswith(start))


def test_like_images_lie_within_the_floor_and_blurred_ones_beyond(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    like, soft = tmp_path / "like", tmp_path / "soft"
    assert run(monkeypatch, "evaluate", films / "real", films / "made", "--report", like) == 0
    assert run(monkeypatch, "evaluate", films / "real", films / "soft", "--report", soft) == 0
    told = capsys.readouterr().out
    assert "within the floor" in told
    assert re.search(r"^not significant .*; after correction for 14 tests \(p = [0-9.e-]+\)$", told, re.MULTILINE)
    assert "extrapolated" not in told
    assert "Holds pixels of patients" in told
    first, second = figures(like), figures(soft)
    assert of(first, "Frechet distance (")["verdict"] == WITHIN
    assert of(first, "KID")["verdict"] == WITHIN
    assert [name for name, row in first.items() if row["verdict"] == DIFFERS] == []
    frechet = of(second, "Frechet distance (")
    assert frechet["verdict"] == of(second, "KID")["verdict"] == BEYOND
    assert frechet["low"] > frechet["floor_limit"] > frechet["floor"] > 0
    assert frechet["n"] == "12 patients a side"
    noise = second["statistics: noise SD"]
    assert noise["verdict"] == DIFFERS
    assert noise["value"] <= noise["high"] < 0
    assert second["statistics: grey, mean"]["verdict"] != DIFFERS
    assert of(second, "pairs: PSNR")["verdict"] == NOT_MEASURED


def test_tests_that_can_never_be_significant_are_not_called_no_difference(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_films(tmp_path / "two", range(2))
    put_films(tmp_path / "eight", range(100, 108), blur=2)
    report = tmp_path / "report"
    assert run(monkeypatch, "evaluate", tmp_path / "two", tmp_path / "eight", "--report", report) == 0
    told = capsys.readouterr().out
    assert len(re.findall(r"^not tested: too few .*; 14 tests need 6 patients a side$", told, re.MULTILINE)) == 14
    rows = figures(report).values()
    assert [row["p"] for row in rows if row["verdict"] == TOO_FEW] == [None] * 14
    assert "not tested: too few (14 tests need 6 patients a side)" in (report / HTML_FILE).read_text()


@pytest.mark.parametrize("groups", [(5, 5, TOO_FEW), (6, 6, DIFFERS), (3, 12, TOO_FEW), (3, 20, DIFFERS)])
def test_what_is_too_few_is_what_the_test_can_reach(groups: tuple[int, int, str]) -> None:
    one, other, verdict = groups
    real, made = (
        SimpleNamespace(
            statistics={f"s{k}": first + np.arange(float(count)) for k in range(14)},
            groups=[f"{first}-{k}" for k in range(count)],
            windows_differ=False,
        )
        for first, count in ((0, one), (100, other))
    )
    assert {row.verdict for row in statistic_rows(cast(Any, real), cast(Any, made), seed=0)} == {verdict}


@pytest.mark.parametrize("count", [8, 100])
def test_a_share_that_could_as_well_be_the_worst_is_not_within_the_floor(count: int) -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2 * count, 5)), 1.3 * rng.normal(size=(count, 5))
    sides = [
        SimpleNamespace(groups=[f"{name}{k}" for k in range(len(values))], windows_differ=name == "made")
        for name, values in (("real", real), ("made", made))
    ]
    rows = distance_rows("texture", Pool(real, made), *cast(Any, sides), seed=0, step=lambda *_: None)
    by_name = {row.name.split(",")[0].split(" (")[0]: row for row in rows}
    assert ("extrapolated to many images (texture, 125 features without weights)" in rows[1].name) is (count == 100)
    assert (by_name["precision"].verdict == NO_POWER) is (count == 8)
    assert by_name["KID"].verdict in (WITHIN, BEYOND)
    assert by_name["KID"].reason == "windows differ"


def test_windows_that_differ_between_the_sides_are_said_beside_each_verdict(tmp_path: Path) -> None:
    real = dicom_films(tmp_path / "real", range(6))
    made = dicom_films(tmp_path / "made", range(20, 26), WindowCenter=120, WindowWidth=160)
    found = evaluate(real, made)
    assert "0 of 6 real and 6 of 6 synthetic images are seen in a window of their own" in " ".join(found.notes)
    tested = [row for row in found.rows if row.family == "statistics"]
    assert {row.verdict for row in tested} <= {DIFFERS, NO_DIFFERENCE}
    assert all(row.reason.endswith("; windows differ") for row in tested)
    assert any(one.endswith("; windows differ.") for one in found.criteria[0].measured)
    seen = evaluate(real, made, EvaluationSettings(window=Window(center=120, width=160)))
    assert not any("windows differ" in row.reason for row in seen.rows)
    whole = dicom_films(tmp_path / "whole", range(20, 26), WindowCenter=128, WindowWidth=256)
    assert not evaluate(real, whole).grid.windows_differ  # a window that is the full range


class Page(HTMLParser):
    """What a page would fetch, its pictures, its tags and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.pictures: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "data", "action") or "url(" in (value or ""):
                (self.pictures if (value or "").startswith("data:image/png;base64,") else self.fetched).append(
                    value or ""
                )

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def test_the_report_needs_nothing_else_and_agrees_with_its_json(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = tmp_path / "new" / "report"
    assert run(monkeypatch, "evaluate", films / "real", films / "soft", "--report", report) == 0
    assert sorted(path.name for path in report.iterdir()) == sorted([HTML_FILE, JSON_FILE])
    assert not list(report.parent.glob(".*"))
    text, record = ((report / name).read_text(encoding="utf-8") for name in (HTML_FILE, JSON_FILE))
    page = Page(text)
    assert page.fetched == []
    assert "script" not in page.tags and "link" not in page.tags
    assert "@import" not in text and "@font-face" not in text
    assert len(page.pictures) == page.tags.count("img") == 2
    assert page.tags.count("svg") == 3
    for name in ("film3", "made105", "film", ".png"):  # no name of a file, which may be a patient's
        assert name not in record
        assert name not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    document = json.loads(record)
    for row in document["figures"]:
        assert html.escape(row["name"]) in text
        if isinstance(row["value"], float):
            assert f">{shown(row['value'])}" in text
    assert [one["name"] for one in document["scorecard"]] == [
        "congruence", "coverage", "constraint", "completeness", "compliance", "comprehension", "consistency",
    ]  # fmt: skip
    by_name = {one["name"]: one["measured"] for one in document["scorecard"]}
    assert by_name["constraint"][0] == "Anatomy: not measured."
    assert by_name["comprehension"] == NOT_MEASURED  # no file tells how these PNGs were made
    assert "0 of 12 synthetic images are marked" in by_name["compliance"][0]
    assert "0 of 12 synthetic images are copies or near copies" in by_name["coverage"][-1]
    assert document["images"]["real"]["patients"] == 24
    assert page.text.count("not measured") >= 2


@pytest.mark.parametrize(("limit", "drawn"), [(0.9, True), (0.995 + 1e-16, False), (1.0, False)])
def test_a_share_without_a_scale_stands_in_words(limit: float, drawn: bool) -> None:
    """Where nearly all draws of real against real are 1, their mean lies below the 5 % point: good would look bad."""
    distance = Row(family="sets", name="KID (texture)", n="", value=2.0, low=1.0, high=3.0, floor=0.5, floor_limit=1.0)
    share = Row(family="sets", name="recall, 5 neighbours (texture)", n="", value=0.0, low=0.0, high=0.3, floor=0.995,
                floor_limit=limit, verdict=BEYOND)  # fmt: skip
    plot = distances_plot([distance, share])
    assert "KID" in plot and "recall" in plot
    assert plot.count("<circle") == 1 + drawn
    assert ("0 (0 to 0.3), real 0.995: beyond the floor, no scale" in plot) is not drawn
    worst = distances_plot([share])
    if drawn:  # farther right is worse
        assert float(re.findall(r"<circle cx='([0-9.]+)'", worst)[0]) == WIDTH - RIGHT


def test_numbers_from_the_cache_are_the_same(films: Path, cache: Path) -> None:
    shutil.rmtree(cache, ignore_errors=True)
    first = evaluate(films / "real", films / "made")
    again = evaluate(films / "real", films / "made")
    anew = evaluate(films / "real", films / "made", EvaluationSettings(cache=False))
    assert (first.real.from_cache, again.real.from_cache, anew.real.from_cache) == (0, 24, 0)
    assert (
        [row.record() for row in first.rows]
        == [row.record() for row in again.rows]
        == [row.record() for row in anew.rows]
    )
    for file in cache.rglob("*.npy"):
        file.write_bytes(file.read_bytes()[:40])  # cut off
    damaged = evaluate(films / "real", films / "made")
    assert damaged.real.from_cache == 0
    assert [row.record() for row in damaged.rows] == [row.record() for row in first.rows]
    assert not list(cache.rglob("*.part"))


def test_another_window_is_not_taken_from_the_cache(films: Path) -> None:
    plain = evaluate(films / "real", films / "made")
    seen = evaluate(films / "real", films / "made", EvaluationSettings(window=Window(center=100, width=120)))
    assert seen.real.statistics["grey, SD"].mean() > 1.2 * plain.real.statistics["grey, SD"].mean()


def test_the_same_patient_on_both_sides_is_refused_and_listed(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    both = tmp_path / "both"
    shutil.copytree(films / "made", both)
    Image.fromarray(film(7, noise=7.0)).save(both / "memorised.png")
    report = tmp_path / "report"
    assert run(monkeypatch, "evaluate", films / "real", both, "--report", report) == 1
    told = capsys.readouterr().err
    assert "film7.png and memorised.png (near copy" in told
    assert "--allow-shared" in told
    assert not report.exists()
    assert run(monkeypatch, "evaluate", films / "real", both, "--report", report, "--allow-shared") == 0
    assert "shared      memorised.png and film7.png" in capsys.readouterr().out
    document = json.loads((report / JSON_FILE).read_text())
    assert document["shared_patients"] == 1
    assert any("flatter" in note for note in document["notes"])
    with pytest.raises(SharedPatientError) as refused:
        evaluate(films / "real", films / "real")
    assert len(refused.value.pairs) == 24


def test_pairs_by_name(films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    better = tmp_path / "better"
    better.mkdir()
    for seed in MADE:
        mixed = (film(seed).astype(float) + film(seed, blur=0.8)) / 2
        Image.fromarray(mixed.round().astype(np.uint8)).save(better / f"made{seed}.png")
    report = tmp_path / "report"
    monkeypatch.setenv("HIRESMEDSYNTH_CACHE", str(tmp_path / "cache"))
    options = ("--paired", "--against", better, "--perceptual-pairs", 0, "--no-cache")
    assert run(monkeypatch, "evaluate", films / "made", films / "soft", "--report", report, *options) == 0
    assert not (tmp_path / "cache").exists()
    rows = figures(report)
    psnr, curious = rows["pairs: PSNR"], rows["pairs: PSNR with a peak of 24 bits"]
    assert psnr["n"] == "12 pairs of 12 patients"
    assert psnr["low"] < psnr["value"] < psnr["high"]
    assert psnr["floor"] < psnr["value"]  # two different films
    assert curious["value"] - psnr["value"] == pytest.approx(96.36, abs=0.01)
    assert "curiosity" in curious["note"]
    assert rows["pairs: SSIM"]["floor"] < rows["pairs: SSIM"]["value"] < 1
    assert rows["pairs: PSNR, inside lesions"]["verdict"] == NOT_MEASURED
    assert "left out" in rows["pairs: ST-LPIPS"]["note"]
    test = rows["methods: PSNR"]
    assert test["verdict"] == DIFFERS
    assert test["value"] > 0
    assert "Wilcoxon" in test["note"] and "correction for 3 tests" in test["note"]
    assert of(rows, "distances")["verdict"] == NOT_MEASURED  # the same patients on both sides


def test_pairs_without_partners_are_refused(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "evaluate", films / "real", films / "made", "--report", tmp_path / "r", "--paired") == 1
    assert "12 synthetic image(s) have no single partner" in capsys.readouterr().err
    against = ("--against", films / "soft")
    assert run(monkeypatch, "evaluate", films / "real", films / "made", "--report", tmp_path / "r", *against) == 1
    assert "Add --paired" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_cases_are_pairs_with_their_own_background(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        case(tmp_path / "cases" / f"c{seed}", seed=seed, shape=(3, 64, 80))
        background = case(tmp_path / "other" / f"c{seed}", seed=50 + seed, shape=(3, 64, 80))
        shutil.move(background / "dicom_background", tmp_path / "real" / f"s{seed}")
        for number, file in enumerate((tmp_path / "real" / f"s{seed}").iterdir()):
            rename_series(file, seed, number)
    report = tmp_path / "report"
    options = ("--slices", 1, "--perceptual-pairs", 0)
    assert run(monkeypatch, "evaluate", tmp_path / "real", tmp_path / "cases", "--report", report, *options) == 0
    rows = figures(report)
    assert rows["pairs: PSNR, outside lesions"]["value"] == "infinite"
    assert "3 of 3 pairs have equal pixels" in rows["pairs: PSNR, outside lesions"]["note"]
    assert rows["pairs: NMSE, outside lesions"]["value"] == 0
    assert rows["pairs: PSNR, inside lesions"]["value"] < 10
    assert rows["pairs: SSIM, inside lesions"]["value"] < 0.5 < rows["pairs: SSIM, outside lesions"]["value"]
    size = rows["lesions: diameter, mm"]
    assert size["value"] == pytest.approx((6 * 15 * 15 * 0.7 * 0.7 * 5 / np.pi) ** (1 / 3), rel=1e-4)
    assert "16 real" in of(rows, "Frechet")["note"]
    assert len(Page((report / HTML_FILE).read_text()).pictures) == 4  # sides, nearest, pairs, lesions


def test_lesions_are_compared_with_real_ones_where_both_are_marked(tmp_path: Path) -> None:
    for side, first in (("real", 0), ("made", 50)):
        for seed in range(first, first + 3):
            case(tmp_path / side / f"c{seed}", seed=seed, pair=False, shape=(3, 64, 80))
    # phantoms are near copies of each other
    found = evaluate(tmp_path / "real", tmp_path / "made", EvaluationSettings(allow_shared=True))
    rows = {row.name: row for row in found.rows if row.family == "lesions"}
    size = rows["diameter, mm: synthetic minus real"]
    assert (size.value, size.n, size.verdict) == (0, "3 real, 3 synthetic patients", TOO_FEW)
    assert rows["contrast, HU"].value == pytest.approx(950, rel=0.02)  # 1100 in 150
    share = rows["contrast, HU: share in the range of historical nodules"]
    assert (share.value, share.high) == (0, pytest.approx(1 - 0.025 ** (1 / 3)))  # exact for 0 of 3


def rename_series(file: Path, seed: int, number: int) -> None:
    import pydicom

    data = pydicom.dcmread(file)
    data.SeriesInstanceUID, data.PatientID = f"1.2.7.{seed}", f"P{seed}"
    data.SOPInstanceUID = f"1.2.7.{seed}.{number}"
    data.save_as(file)


def test_a_report_is_not_written_over(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / HTML_FILE).write_text("earlier")
    arguments = ("evaluate", films / "real", films / "made", "--report", report)
    assert run(monkeypatch, *arguments) == 1
    assert "already exists" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, "--overwrite") == 0
    assert (report / HTML_FILE).read_text() != "earlier"
    (report / "mine.txt").write_text("kept")
    assert run(monkeypatch, *arguments, "--overwrite") == 1
    assert "no report" in capsys.readouterr().err


def test_help_loads_nothing_heavy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert heavy_modules_after("import HiResMedSynthLib.cli.evaluate") == set()
    assert run(monkeypatch, "evaluate", "--help") == 0
    assert "hiresmedsynth evaluate real rebuilt --paired" in capsys.readouterr().out


def test_bad_folders(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, "evaluate", films / "real", films / "made", "--report", tmp_path / "file" / "report") == 1
    assert "can't be made here" in capsys.readouterr().err
    report = ("--report", tmp_path / "report")
    assert run(monkeypatch, "evaluate", films / "real", tmp_path / "none", *report) == 1
    assert "there is no such file or folder" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate", films / "real", films / "made" / "made100.png", *report) == 1
    assert "1 image(s) of 1 patient(s)" in capsys.readouterr().err
    assert run(monkeypatch, "evaluate", films / "real", films / "made", *report, "--window", "-600") == 2
    assert run(monkeypatch, "evaluate", films / "real", films / "made") == 2
