"""A backend that doesn't start at first: why is told, and all is there once it does."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from Testing.slicer.conftest import Workbench

RIGHT_LUNG = (0, 450, 340)


def test_a_python_without_the_packages_is_told(bench: Workbench) -> None:
    settings, backend = bench.app.userSettings(), bench.studio.session.backend
    kept = settings.value("HiResMedSynth/interpreter")
    backend.stop()
    try:
        for interpreter, words in (("/nowhere/python", "can't be started"), ("/bin/false", "ended while it started")):
            settings.setValue("HiResMedSynth/interpreter", interpreter)
            backend.start()
            bench.until(lambda: backend.state == "failed")
            assert words in backend.problem
    finally:
        settings.setValue("HiResMedSynth/interpreter", kept)
    backend.start()
    bench.until(lambda: backend.state == "ready")


def test_what_a_first_start_that_failed_left_unsaid_is_said_after_the_next(bench: Workbench) -> None:
    settings, studio, panel = bench.app.userSettings(), bench.studio, bench.panel
    backend = studio.session.backend
    kept = settings.value("HiResMedSynth/interpreter")
    backend.stop()
    studio.cards, studio.pictures = {}, {}
    try:
        settings.setValue("HiResMedSynth/interpreter", "/bin/false")
        pixels = np.random.default_rng(0).integers(0, 999, (1, 300, 280)).astype(np.int16)
        node = slicer.util.addVolumeFromArray(pixels, np.diag([-1.0, -1.0, 1.0, 1.0]), "x.png")
        studio.parameters.domain = "cxr"
        studio.parameters.background = node
        bench.until(lambda: backend.state == "failed")
        bench.settle()
        assert studio.odd == []
    finally:
        settings.setValue("HiResMedSynth/interpreter", kept)
    backend.start()
    bench.until(lambda: backend.state == "ready")
    bench.settle()
    assert any("1 mm" in odd for odd in studio.odd), studio.odd
    assert studio.cards and panel.bank.list.count > 0


def test_apply_works_again_after_a_start_that_failed_at_once(bench: Workbench) -> None:
    settings, studio = bench.app.userSettings(), bench.studio
    bench.place(bench.load("film"), RIGHT_LUNG)
    studio.session.backend.stop()
    try:
        settings.setValue("HiResMedSynth/url", "http://example.org")
        studio.edit(1, "size", size_mm=(17.0, 17.0))
        bench.settle()
        assert studio.stale
    finally:
        settings.setValue("HiResMedSynth/url", "")
    studio.compose()
    bench.settle()
    assert studio.composition.drawn(1)["diameter_mm"] == pytest.approx(17)
