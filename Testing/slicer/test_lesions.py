"""Points, the table, the editor and the panel's own undo."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer

from Testing.slicer.conftest import Workbench

RIGHT_LUNG, LEFT_LUNG = (0, 450, 340), (0, 360, 720)


@pytest.fixture
def film(bench: Workbench) -> Workbench:
    bench.load("film")
    return bench


def composed(bench: Workbench) -> np.ndarray:
    return slicer.util.arrayFromVolume(bench.studio.parameters.composed).copy()


def test_undo_and_redo_bring_back_points_and_pixels(film: Workbench) -> None:
    view, studio, panel = film.view("Green"), film.studio, film.panel
    film.place(view, RIGHT_LUNG)
    one = composed(film)
    film.place(view, LEFT_LUNG)
    two, places = composed(film), film.positions()
    assert (one != two).any()
    assert panel.compose.undo.toolTip == "place a lesion"
    film.click(panel.compose.undo)
    film.settle()
    assert (composed(film) == one).all()
    assert len(film.positions()) == 1
    film.click(panel.compose.redo)
    film.settle()
    assert (composed(film) == two).all()
    assert np.allclose(film.positions(), places)
    studio.delete(1)
    film.settle()
    assert studio.composition.keys == (2,)
    film.click(panel.compose.undo)
    film.settle()
    assert (composed(film) == two).all(), "a deleted lesion comes back as it was"
    assert studio.composition.keys == (1, 2)


def test_the_editor_changes_one_lesion_and_leaves_the_others(film: Workbench) -> None:
    studio, editor = film.studio, film.panel.lesions.editor
    film.place(film.view("Green"), RIGHT_LUNG, LEFT_LUNG)
    film.panel.lesions.select(2)
    other = studio.composition.patches[0]
    editor.size.setValue(16.0)
    film.settle()
    assert studio.composition.drawn(2)["diameter_mm"] == pytest.approx(16)
    editor.kind.setCurrentIndex(editor.kind.findData("solid"))
    editor.turned.setChecked(True)
    editor.rotation.setValue(45)
    film.settle()
    assert studio.composition.drawn(2)["request"]["rotation_degrees"] == 45
    editor.contrast_mode.setCurrentIndex(1)
    editor.contrast.setValue(500)
    film.settle()
    assert studio.composition.drawn(2)["contrast"] == pytest.approx(500)
    seed = editor.seed.value
    film.click(editor.another)
    film.settle()
    assert editor.seed.value != seed
    editor.seed.setValue(0)
    assert "Another lesion has the seed 0" in film.panel.status.text
    film.settle()
    assert other[0] == studio.composition.patches[0][0]
    assert (other[1] == studio.composition.patches[0][1]).all(), "the first lesion stays bit for bit"


def test_the_bank_is_offered_with_pictures(film: Workbench) -> None:
    studio, editor = film.studio, film.panel.lesions.editor
    film.place(film.view("Green"), RIGHT_LUNG)
    film.until(lambda: bool(studio.cards))
    film.settle()
    entry = next(name for name, card in studio.cards.items() if card["type"] == "solid")
    index = editor.kind.findData(entry)
    assert index > 0
    assert not editor.kind.itemIcon(index).isNull()
    editor.kind.setCurrentIndex(index)
    film.settle()
    assert studio.composition.drawn(1)["bank_entry"] == entry


def test_a_target_visibility_is_met(bench: Workbench) -> None:
    view = bench.load("ct")
    bench.place(view, (24, 90, 60))
    editor = bench.panel.lesions.editor
    editor.contrast_mode.setCurrentIndex(2)
    editor.contrast.setValue(8)
    bench.settle()
    assert bench.studio.composition.drawn(1)["cnr"] == pytest.approx(8, rel=0.02)
    assert "CNR 8.0" in bench.panel.lesions.table.item(0, 3).text()


def test_what_is_odd_about_a_lesion_stands_in_its_row(bench: Workbench) -> None:
    bench.place(bench.load("ct"), (24, 90, 60), (30, 90, 190))
    studio, table = bench.studio, bench.panel.lesions.table
    studio.edit(1, "size", size_mm=(150.0, 150.0))
    studio.edit(2, "size", size_mm=(4.5, 4.5))
    bench.settle()
    assert studio.composition.keys == (2,)
    assert "(!)" in table.item(1, 3).text()
    assert "\nLesion 2 (4.5 mm) is thinner than the slices (5 mm): " in table.item(1, 3).toolTip()
    assert "(!)" not in table.item(0, 3).text(), "the backend's number 1 is the table's 2"
    studio.edit(2, "contrast", size_mm=(12.0, 12.0), contrast=(0.0, 0.0))
    bench.settle()
    assert "it can't be seen" in table.item(1, 3).toolTip()
    assert "thinner" not in table.item(1, 3).toolTip()


def test_a_locked_lesion_is_neither_dragged_nor_varied(film: Workbench) -> None:
    view = film.view("Green")
    film.place(view, RIGHT_LUNG)
    film.panel.lesions.editor.lock.setChecked(True)
    film.settle()
    place = film.positions()[0]
    view.drag(place, film.studio.image.world_of((0, 520, 360)))
    film.settle()
    assert film.positions()[0] == place


def test_suggested_lesions_stand_where_they_may(film: Workbench) -> None:
    film.panel.lesions.count.setValue(4)
    film.click(film.panel.lesions.suggest)
    film.settle()
    assert len(film.positions()) == 4
    assert len(film.studio.composition.keys) == 4
    film.click(film.panel.compose.undo)
    film.settle()
    assert not film.positions()
    background = slicer.util.arrayFromVolume(film.studio.parameters.background)
    assert (composed(film) == background).all()


def test_a_dragged_lesion_keeps_its_form(bench: Workbench) -> None:
    view = bench.load("ct")
    studio = bench.studio
    bench.place(view, (24, 90, 60))

    def form() -> tuple[object, ...]:
        drawn = studio.composition.drawn(1)
        assert drawn is not None, studio.refused
        return drawn["bank_entry"], drawn["diameter_mm"], json.dumps(drawn["details"]["deformation"])

    before, seen = form(), []
    goal = np.array(studio.image.world_of((24, 100, 70)))
    view.drag(bench.positions()[0], goal, between=lambda: (bench.settle(), seen.append(form())))
    bench.settle()
    assert np.linalg.norm(np.array(bench.positions()[0]) - goal) < 2.0
    assert {before, *seen, form()} == {before}
    assert bench.panel.compose.undo.toolTip == "move a lesion"
    seed = bench.panel.lesions.editor.seed.value
    bench.click(bench.panel.lesions.editor.another)
    bench.settle()
    assert bench.panel.lesions.editor.seed.value != seed
    assert not studio.settings()[0]["requests"][0].get("keep_shape"), "another form may be judged again"


def test_choosing_a_row_shows_its_slice(bench: Workbench) -> None:
    view = bench.load("ct")
    bench.place(view, (20, 90, 60), (30, 90, 190))
    bench.panel.lesions.select(1)
    bench.app.processEvents()
    shown = view.mrmlSliceNode().GetSliceToRAS().GetElement(2, 3)
    assert shown == pytest.approx(bench.positions()[0][2], abs=2.6)


def test_without_live_preview_nothing_changes_until_apply(film: Workbench) -> None:
    film.panel.compose.live.setChecked(False)
    film.place(film.view("Green"), RIGHT_LUNG)
    assert film.studio.composition is None
    assert "up-to-date" in film.panel.export.export.toolTip
    film.click(film.panel.compose.apply)
    film.settle()
    assert film.studio.composition.keys == (1,)
    film.panel.compose.live.setChecked(True)


def test_every_binding_works_both_ways(bench: Workbench) -> None:
    """Each widget with a SlicerParameterName writes its field, and shows it when the field is set."""
    import qt

    parameters = bench.studio.parameters
    bound = [w for w in bench.panel.widget.findChildren(qt.QWidget) if w.property("SlicerParameterName")]
    assert len(bound) >= 25
    for widget in bound:
        name = widget.property("SlicerParameterName")
        value = getattr(parameters, name)
        if isinstance(value, bool):
            widget.setChecked(not value)
            assert getattr(parameters, name) is (not value), name
            setattr(parameters, name, value)
            assert widget.checked is value, name
        elif isinstance(value, str):
            setter = widget.setCurrentPath if hasattr(widget, "setCurrentPath") else widget.setText
            setter("äb c")
            assert getattr(parameters, name) == "äb c", name
            setattr(parameters, name, value)
            assert (widget.currentPath if hasattr(widget, "setCurrentPath") else widget.text) == value, name
        elif isinstance(value, (int, float)):
            widget.setValue(value + 1)
            assert getattr(parameters, name) == widget.value, name
            setattr(parameters, name, value)
            assert widget.value == pytest.approx(value), name


def test_an_mr_is_offered_and_a_new_lesion_in_it_asks_for_a_contrast(bench: Workbench) -> None:
    rows, columns = np.mgrid[:96, :96]
    body = (rows - 48) ** 2 + (columns - 48) ** 2 < 40**2
    noise = np.random.default_rng(4).normal(0, 6, (9, 96, 96))
    pixels = np.abs(np.where(body, 300.0, 0.0) + noise).astype(np.int16)
    node = slicer.util.addVolumeFromArray(pixels, np.diag([-1.0, -1.0, 2.5, 1.0]), "made-up MR")
    bench.studio.parameters.background = node
    box = bench.panel.background.domain
    box.setCurrentIndex(box.findData("mr"))
    bench.until(lambda: bench.studio.domain == "mr")
    bench.settle()
    points = bench.studio.parameters.points
    points.AddControlPointWorld(*bench.studio.image.world_of((4, 48, 48)))
    bench.settle()
    drawn = bench.studio.composition.drawn(1)
    assert drawn["request"]["cnr"] == [20.0, 20.0]
    assert drawn["cnr"] == pytest.approx(20, rel=0.05)
    assert not bench.studio.refused
    bench.panel.lesions.select(1)
    bench.panel.lesions.editor.contrast.setValue(-10)
    bench.settle()
    assert bench.studio.composition.drawn(1)["request"]["cnr"] == [-10.0, -10.0]
