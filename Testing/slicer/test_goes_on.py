"""After Cancel, a failure or a failed variant the panel goes on with all that it had."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slicer

from HiResMedSynthLib.service.protocol import ErrorInfo
from Testing.slicer.conftest import Workbench
from Testing.slicer.test_sections import RIGHT_LUNG


def test_what_was_cancelled_unseen_is_asked_again(bench: Workbench) -> None:
    studio, panel = bench.studio, bench.panel
    studio.session.backend.start()
    bench.until(lambda: studio.session.backend.state == "ready")
    bench.settle()
    studio.models.forget()
    studio.cards, studio.pictures, panel.bank._asked_for = {}, {}, None
    panel.bank.list.clear()
    panel.background.sample_film.click()
    bench.until(lambda: studio.is_ready and panel.bank._asking in studio.session.tickets)
    panel.cancel.click()
    bench.settle()
    assert any("cancelled" in text for text, _problem in bench.said)
    studio.parameters.pleuraMargin = 3.0
    bench.settle()
    assert studio.parameters.danger is not None
    assert studio.cards and panel.bank.list.count > 0
    assert studio.facts["pixel_sha256"]
    assert studio.models.known


def test_why_there_is_no_danger_mask_stays_until_the_user_goes_on(bench: Workbench) -> None:
    noise = np.random.default_rng(0).integers(0, 900, (1, 64, 64)).astype(np.int16)
    bench.studio.parameters.domain = "cxr"
    bench.studio.parameters.background = slicer.util.addVolumeFromArray(noise, np.diag([-0.4, -0.4, 1.0, 1.0]), "noise")
    bench.until(lambda: bench.studio.is_ready)
    bench.settle()
    reason = next(text for text, problem in bench.said if problem)
    assert bench.panel.status.text == f"\u26a0 {reason}"
    bench.load("film")
    assert reason not in bench.panel.status.text


def test_a_case_is_not_opened_onto_its_image_at_another_spacing(bench: Workbench, tmp_path: Path) -> None:
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, panel, p = bench.studio, bench.panel, bench.studio.parameters
    pixels = slicer.util.arrayFromVolume(p.background).copy()
    case = studio.composition.case
    spacing = case["background"]["pixel_spacing_mm"]
    (tmp_path / "case.json").write_text(json.dumps(case), encoding="utf-8")
    p.background = slicer.util.addVolumeFromArray(pixels, np.diag([-1.0, -1.0, 1.0, 1.0]), "film.png")
    p.domain = "cxr"
    bench.until(lambda: studio.is_ready)
    panel.cases.file.setCurrentPath(str(tmp_path))
    for given, words in ((0.0, f"{spacing[0]:g} x {spacing[1]:g} mm"), (spacing[0], "this is the image")):
        p.assumedSpacing = given
        bench.settle()
        bench.said.clear()
        bench.click(panel.cases.open)
        bench.settle()
        assert any(words in text for text, _problem in bench.said), bench.said
    drawn = studio.composition.case["lesions"][0]
    assert drawn["diameter_mm"] == pytest.approx(case["lesions"][0]["diameter_mm"])


def test_a_variant_that_failed_leaves_its_number_and_seeds_behind(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt
    from HiResMedSynthPanel import variants

    bench.place(bench.load("film"), RIGHT_LUNG)
    studio, made = bench.studio, []

    def run(kind: str, *, done: Any, failed: Any, title: str, out: Path | None = None, **_more: Any) -> Any:
        number = int(title.split()[1].rstrip(","))
        if out is not None:
            out.mkdir()
            made.append((number, out.name))
        elif number in (2, 4):
            failed(ErrorInfo(what="no room", remedy=""))
            return None
        qt.QTimer.singleShot(0, lambda: done(out or ()))
        return SimpleNamespace(notes=())

    composition = SimpleNamespace(of_result=lambda *_given: SimpleNamespace(case={}, refused={}, lesions=b""))
    monkeypatch.setattr(variants, "Composition", composition)
    monkeypatch.setattr(studio.session, "run", run)
    batches = bench.panel.compose.variants
    for count, words in ((3, "2 of 3"), (1, "0 of 1"), (1, "1 of 1")):
        batches.start(count, tmp_path)
        bench.until(lambda: not batches.is_running)
        assert words in bench.panel.status.text
    assert made == [(1, "variant-0001"), (3, "variant-0003"), (5, "variant-0005")]
