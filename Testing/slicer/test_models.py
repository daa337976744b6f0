"""What the backend's models offer in the panel: danger mask, prior, temperature, zones, lesions, new backgrounds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer

from Testing.slicer.conftest import BACKEND_PYTHON, ROOT, Workbench

RIGHT_LUNG = (0, 450, 340)
STORE = "HIRESMEDSYNTH_MODELS"


def ask(bench: Workbench) -> None:
    """As when the module is entered."""
    bench.studio.models.ask()
    bench.settle()


@pytest.fixture(scope="module")
def models_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    command = [BACKEND_PYTHON, "-m", "Testing.slicer.make_models", str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, STORE: str(folder / "store")})
    return folder / "store"


@pytest.fixture
def stocked(models_of_ours: Path, bench: Workbench) -> Iterator[Workbench]:
    """The panel with models in its backend's store."""
    shutil.copytree(models_of_ours, os.environ[STORE])
    yield bench
    shutil.rmtree(os.environ[STORE])


def offered(box: Any) -> dict[str, str]:
    """Value -> text of a list's entries."""
    return {box.itemData(k): box.itemText(k) for k in range(box.count)}


def choose(box: Any, value: str) -> None:
    index = box.findData(value)
    assert index >= 0, offered(box)
    box.setCurrentIndex(index)


def test_without_models_only_what_needs_none_is_offered(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    ask(bench)
    rows, editor = bench.panel.where.method_rows, bench.panel.lesions.editor
    assert set(offered(rows.danger)) - {"auto", "rule"} <= shipped("danger-film")
    assert set(offered(rows.prior)) - {"auto", "density"} <= shipped("location-film"), "no distances on a film"
    assert list(offered(editor.maker)) == ["deform"]
    assert "hiresmedsynth lesion train" in editor.maker.toolTip
    assert "hiresmedsynth models add" in rows.danger.toolTip
    assert offered(bench.panel.background.new.domain) == {"cxr": "Chest film", "lung-ct": "CT of the lung"}


def shipped(task: str) -> set[str]:
    """Names of the release's placement models of a task."""
    from HiResMedSynthLib import weights

    code = (
        "import json\nfrom HiResMedSynthLib import weights\nfrom HiResMedSynthLib.service.model_tasks import _told\n"
        "print(json.dumps([_told(one) for one in weights.models('placement')]))"
    )
    assert weights.STORE_VARIABLE == STORE
    done = subprocess.run([BACKEND_PYTHON, "-c", code], check=True, cwd=ROOT, capture_output=True)
    return {one["name"] for one in json.loads(done.stdout) if one["task"] == task}


def test_a_network_finds_the_danger_mask_and_tells_how_far_it_is(stocked: Workbench) -> None:
    stocked.load("ct")
    ask(stocked)
    studio, rows = stocked.studio, stocked.panel.where.method_rows
    assert {"ours-lungs"} <= set(offered(rows.danger))
    assert "ours-films" not in offered(rows.danger)
    assert {"ours-likely", "density", "distances"} <= set(offered(rows.prior))
    assert "density and distances" in offered(rows.prior)["auto"]
    choose(rows.prior, "distances")
    stocked.until(lambda: "distances" in studio.method)
    before = studio.parameters.danger.GetSegmentation().GetNumberOfSegments()
    messages, bar = set(), set()

    def listen() -> None:
        if studio.session.ticket is not None:
            messages.add(studio.session.ticket.message)
            bar.add(stocked.panel.bar.format)

    studio.session.changed.connect(listen)
    choose(rows.danger, "ours-lungs")
    choose(rows.prior, "ours-likely")
    stocked.until(lambda: "ours-lungs" in studio.method and "ours-likely" in studio.method)
    stocked.settle()
    assert "network ours-lungs" in rows.danger.toolTip
    assert any("slice" in message and "of 48" in message for message in messages), messages
    assert any("slice" in text and "of 48 (" in text for text in bar), bar
    assert before > 0
    assert not [text for text, problem in stocked.said if problem]
    stocked.place(stocked.view("Red"), (24, 90, 60))
    case = studio.composition.case
    assert case["settings"]["placement"] == {"danger": "ours-lungs", "prior": "ours-likely", "temperature": 1.0}
    assert "ours-lungs" in case["placement_method"]
    messages.clear()
    studio.parameters.pleuraMargin = 3.0
    stocked.settle()
    assert any("slice" in message and "of 48" in message for message in messages), "told by the composition too"
    assert not studio.stale


def test_a_model_for_ct_is_left_out_on_a_film(stocked: Workbench) -> None:
    stocked.load("ct")
    ask(stocked)
    p, rows = stocked.studio.parameters, stocked.panel.where.method_rows
    choose(rows.danger, "ours-lungs")
    choose(rows.prior, "distances")
    stocked.settle()
    assert p.dangerModel == "ours-lungs"
    stocked.load("film")
    assert p.dangerModel == p.priorModel == "auto"
    assert "ours-films" in offered(rows.danger)
    assert "ours-lungs" not in offered(rows.danger)
    assert rows.danger.currentText.startswith("best available")
    assert stocked.studio.domain == "cxr"


def test_models_are_offered_for_the_pictures_that_the_backend_takes_them_for(stocked: Workbench) -> None:
    from HiResMedSynthPanel import models

    from HiResMedSynthLib.placement import method

    assert models.TASKS == {"danger": method.DANGER_TASKS, "location": method.PRIOR_TASKS}
    stocked.load("film")
    ask(stocked)
    rows, ours = stocked.panel.where.method_rows, stocked.studio.models
    choose(rows.prior, "ours-places")
    stocked.until(lambda: "ours-places" in stocked.studio.method)
    assert not ours.is_for_the_other("ours-places", is_ct=False, domain="cxr")
    for domain in ("kub", "mr"):
        assert ours.is_for_the_other("ours-places", is_ct=False, domain=domain)
        assert "ours-places" not in dict(ours.ways("location", is_ct=False, domain=domain))
    assert "ours-films" in dict(ours.ways("danger", is_ct=False, domain="kub"))
    assert "ours-films" not in dict(ours.ways("danger", is_ct=False, domain="mr"))


def test_a_model_that_is_not_here_is_shown_and_told(bench: Workbench) -> None:
    bench.load("film")
    bench.studio.parameters.dangerModel = "of-another-clinic"
    bench.settle()
    assert "not here" in bench.panel.where.method_rows.danger.currentText
    assert any("no model 'of-another-clinic'" in text for text, problem in bench.said if problem)
    choose(bench.panel.where.method_rows.danger, "rule")
    bench.settle()
    assert bench.studio.parameters.danger.GetSegmentation().GetNumberOfSegments() == 3


def test_temperature_evens_the_heatmap_and_is_part_of_the_case(bench: Workbench) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, rows, p = bench.studio, bench.panel.where.method_rows, bench.studio.parameters

    def mean() -> float:
        heat = slicer.util.arrayFromVolume(p.prior)
        return float(heat[heat > 0].mean())

    before, steps = mean(), studio.history.undo_title
    assert rows.temperature_text.text == "1"
    rows.temperature.setValue(40)
    assert p.temperature == 4.0
    assert studio.stale
    bench.settle()
    assert mean() > before + 5
    assert not studio.stale
    assert studio.composition.case["settings"]["placement"]["temperature"] == 4.0
    assert studio.history.undo_title == steps, "settings are no steps of the lesions' history"
    p.temperature = 12.0
    bench.settle()
    assert rows.temperature_text.text == "12", "beyond the slider's end, from a case"
    assert p.temperature == 12.0


def test_a_scene_keeps_the_choices_and_an_old_one_gets_the_defaults(bench: Workbench, tmp_path: Path) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    p = bench.studio.parameters
    p.dangerModel, p.priorModel, p.temperature, p.suggestZone = "rule", "density", 0.5, "left-lower"
    p.fusion = "alpha"
    bench.settle()
    wanted = bench.studio.composition.case
    bench.app.save_scene(tmp_path / "neu.mrb")
    for name in ("dangerModel", "priorModel", "temperature", "suggestZone", "fusion"):
        p.parameterNode.UnsetParameter(name)
    for key in ("others", "generator", "model", "model_sha256"):  # points of an earlier version
        text = json.loads(p.points.GetNthControlPointDescription(0))
        del text[key]
        p.points.SetNthControlPointDescription(0, json.dumps(text))
    bench.settle()
    bench.app.save_scene(tmp_path / "alt.mrb")
    for scene, choices in (("alt", ("auto", "auto", 1.0, "")), ("neu", ("rule", "density", 0.5, "left-lower"))):
        bench.app.leave(bench.widget)
        bench.app.close_scene()
        bench.app.load_scene(tmp_path / f"{scene}.mrb")
        bench.app.enter(bench.widget)
        bench.settle()
        p = bench.studio.parameters
        assert (p.dangerModel, p.priorModel, p.temperature, p.suggestZone) == choices
        assert p.fusion == "alpha", "as the case in the scene was joined"
        assert bench.studio.composition.keys == (1,)
        assert not bench.studio.stale
    assert bench.studio.composition.case == wanted
    assert bench.panel.where.method_rows.danger.currentText == "rule"
    assert bench.panel.lesions.zone.currentText == "left lower"


def test_suggestions_keep_to_a_zone(bench: Workbench) -> None:
    from HiResMedSynthPanel.lesions_section import zones

    from HiResMedSynthLib.choices import ZONES

    assert {value for _text, value in zones()} == {"", *ZONES}
    bench.load("film")
    studio, lesions = bench.studio, bench.panel.lesions
    middle = studio.image.pixels.shape[2] / 2
    lesions.count.setValue(2)
    for zone, is_left in (("left", True), ("right-upper", False)):
        choose(lesions.zone, zone)
        bench.click(lesions.suggest)
        bench.settle()
        places = [studio.image.place_of(place) for place in bench.positions()]
        assert len(places) == 2
        assert all((place[2] > middle) == is_left for place in places), "the picture's right is the patient's left"
        bench.click(bench.panel.compose.undo)
        bench.settle()
    studio.parameters.suggestZone = ""


def test_a_lesion_is_made_by_a_model_of_the_backend(stocked: Workbench, tmp_path: Path) -> None:
    stocked.place(stocked.load("ct"), (24, 90, 60))
    ask(stocked)
    studio, panel, editor = stocked.studio, stocked.panel, stocked.panel.lesions.editor
    assert offered(editor.maker) == {
        "deform": "a bank lesion, deformed",
        "singan": "SinGAN: one that fits",
        "singan nodule-a": "SinGAN: nodule-a (solid)",
        "learned many": "learned: many",
    }
    editor.kind.setCurrentIndex(editor.kind.findData("part-solid"))
    stocked.settle()
    choose(editor.maker, "singan nodule-a")
    stocked.settle()
    drawn = studio.composition.drawn(1)
    assert drawn is not None, studio.refused
    assert (drawn["request"]["generator"], drawn["request"]["model"]) == ("singan", "nodule-a")
    assert drawn["type"] == "solid", "the type that the model makes"
    assert panel.lesions.table.item(0, 1).text() == "nodule-a"
    assert panel.compose.undo.toolTip == "change what a lesion is made from"
    pixels = slicer.util.arrayFromVolume(studio.parameters.composed).copy()
    panel.export.folder.setCurrentPath(str(tmp_path))
    stocked.finish(panel.export.export)
    stocked.click(panel.compose.undo)
    stocked.settle()
    assert editor.maker.currentText == "a bank lesion, deformed"
    assert (slicer.util.arrayFromVolume(studio.parameters.composed) != pixels).any()

    panel.cases.file.setCurrentPath(str(tmp_path / "synthetic-0001" / "case.json"))
    stocked.click(panel.cases.open)
    stocked.settle()
    assert editor.maker.currentText == "SinGAN: nodule-a (solid)", stocked.said
    assert (slicer.util.arrayFromVolume(studio.parameters.composed) == pixels).all(), "bit for bit"
    choose(editor.maker, "learned many")
    stocked.settle()
    assert studio.refused or any(problem for _text, problem in stocked.said), "it holds no network"
    entry = next(name for name, card in studio.cards.items() if card["type"] == "solid")
    editor.kind.setCurrentIndex(editor.kind.findData(entry))
    stocked.settle()
    assert editor.maker.currentText == "a bank lesion, deformed"
    assert studio.composition.drawn(1)["bank_entry"] == entry


def test_a_case_fills_the_choices(bench: Workbench, tmp_path: Path) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    p, panel = bench.studio.parameters, bench.panel
    p.dangerModel, p.temperature = "rule", 0.5
    bench.settle()
    panel.export.folder.setCurrentPath(str(tmp_path))
    bench.finish(panel.export.export)
    file = tmp_path / "synthetic-0001" / "case.json"
    p.dangerModel, p.temperature = "auto", 1.0
    bench.settle()
    panel.cases.file.setCurrentPath(str(file))
    bench.click(panel.cases.open)
    bench.settle()
    assert (p.dangerModel, p.priorModel, p.temperature) == ("rule", "auto", 0.5)
    case = json.loads(file.read_text(encoding="utf-8"))
    for lesion in case["lesions"]:
        for name in ("zone", "sizes"):
            lesion["request"].pop(name, None)
    case["settings"].pop("placement")
    file.write_text(json.dumps(case), encoding="utf-8")  # as an earlier version wrote it
    bench.click(panel.cases.open)
    bench.settle()
    assert (p.dangerModel, p.temperature) == ("auto", 1.0), bench.said


def test_new_images_are_made_and_a_cancelled_job_keeps_what_is_done(stocked: Workbench) -> None:
    new, studio = stocked.panel.background.new, stocked.studio
    studio.models.forget()
    stocked.panel.refresh()
    assert new.generate.text == "What can be made?"
    assert not new.domain.count
    stocked.finish(new.generate)
    stocked.settle()
    assert offered(new.domain) == {"cxr": "Chest film", "lung-ct": "CT of the lung"}
    choose(new.domain, "lung-ct")
    new.seed.setValue(7)
    new.count.setValue(2)
    stocked.finish(new.generate)
    stocked.until(lambda: studio.is_ready)
    stocked.settle()
    node = studio.parameters.background
    assert node.GetName() == "SYNTHETIC image, seed 7"
    assert any("2 of 2 image(s) made, seed 7 to 8" in text for text, _problem in stocked.said), stocked.said
    assert studio.image.header.units == "HU"
    assert len(slicer.util.getNodes("SYNTHETIC image*")) == 2
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    study = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))
    assert hierarchy.GetItemName(study) == "SYNTHETIC, research only"
    assert any("itself synthetic" in odd for odd in studio.odd)
    assert node not in stocked.panel.annotate.annotations.candidates(), "only what is real is annotated"

    new.count.setValue(16)
    new.seed.setValue(100)
    stocked.click(new.generate)
    stocked.until(lambda: studio.session.ticket is not None and studio.session.ticket.done >= 2)
    studio.session.cancel()
    stocked.until(lambda: any("of 16 image(s) made" in text for text, _problem in stocked.said))
    told = next(text for text, _problem in stocked.said if "of 16 image(s) made" in text)
    made = int(told.split()[0])
    assert 2 <= made < 16
    assert f"Cancelled: {made} of 16 images were made." in told
    stocked.settle()
    assert len(slicer.util.getNodes("SYNTHETIC image*")) == 2 + made

    before = slicer.util.arrayFromVolume(studio.parameters.background).copy()
    stocked.finish(new.reconstruct)
    stocked.until(lambda: studio.parameters.background.GetName() == "SYNTHETIC, rebuilt")
    stocked.settle()
    after = slicer.util.arrayFromVolume(studio.parameters.background)
    assert after.shape == before.shape
    assert np.any(after != before)


def test_a_volume_is_not_rebuilt_and_says_why(bench: Workbench) -> None:
    bench.load("ct")
    ask(bench)
    new = bench.panel.background.new
    assert not new.reconstruct.enabled
    assert "one slice" in new.reconstruct.toolTip


def test_where_no_model_makes_backgrounds_the_row_says_so(bench: Workbench) -> None:
    ask(bench)
    new, models = bench.panel.background.new, bench.studio.models
    models._models = [one for one in models._models if one["kind"] != "background"]
    bench.panel.refresh()
    assert not new.generate.enabled
    assert "a model that makes backgrounds" in new.generate.toolTip
    assert "no model that makes backgrounds" in new.why.text
    assert "hiresmedsynth models add" in new.why.text
    ask(bench)
    assert new.generate.enabled
    assert not new.why.text
