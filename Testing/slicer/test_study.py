"""The section Reader study: from two folders to scores, with the real program as a child."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from Testing.slicer.conftest import Workbench


def pictures(folder: Path, first: int, count: int) -> Path:
    """Pictures of noise, each its own."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for k in range(first, first + count):
        coarse = np.random.default_rng(k).integers(0, 256, (8, 8)).astype(np.uint8)
        Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{k}.png")
    return folder


def test_a_study_is_made_shown_answered_and_scored(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from HiResMedSynthPanel import study_section

    opened: list[str] = []
    monkeypatch.setattr(study_section, "open_page", lambda url: opened.append(url) or True)
    section = bench.panel.study
    section.widget.collapsed = False
    assert "a folder of real images" in section.make.toolTip and "the name of a reader" in section.make.toolTip
    section.real.setCurrentPath(str(pictures(tmp_path / "echte Bilder", 0, 3)))
    section.synthetic.setCurrentPath(str(pictures(tmp_path / "made", 100, 3)))
    section.into.setCurrentPath(str(tmp_path))
    section.readers.setText("Frau Dr. Müller, B")
    bench.click(section.make)
    bench.until(lambda: not section.is_busy)
    assert "needs 50" in section.told.text and "--" not in section.told.text, section.told.text
    section.count.setValue(6)
    bench.click(section.make)
    bench.until(lambda: not section.is_busy)
    study = tmp_path / "study-0001"
    assert section.study.currentPath == str(study), section.told.text

    bench.click(section.serve)
    bench.until(lambda: section.reader.count == 2)
    assert section.reader.itemText(0) == "Frau Dr. Müller: 0 of 6 answered"
    bench.click(section.open)
    (url,) = opened
    origin, _, code = url.partition("/#")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())

    def send(path: str, body: dict[str, object]) -> None:
        headers = {"Content-Type": "application/json", "Origin": origin}
        opener.open(urllib.request.Request(origin + path, json.dumps(body).encode(), headers), timeout=30)

    send("/session", {"code": code})
    bench.until(lambda: section._urls["Frau Dr. Müller"] != url)  # a new code takes the place of the spent one
    send("/answers", {"trial": 1, "choice": "real", "confidence": 3, "seconds": 2.0})
    bench.click(section.score)
    bench.until(lambda: not section.is_busy)
    assert section.told.text.startswith("Frau Dr. Müller: 1 of 6 answered, "), section.told.text
    assert opened[-1] == (study / "scores" / "scores.html").as_uri() and (study / "scores" / "scores.html").is_file()
    bench.click(section.serve)
    assert section.reader.count == 0 and not section.open.enabled
    assert len((study / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == 1

    picture = next((study / "images").iterdir())
    picture.write_bytes(b"")
    bench.click(section.serve)
    bench.until(lambda: "changed since" in section.told.text)
    assert section.serve.text == "Show to readers"
    section.widget.collapsed = True


def test_window_crop_slices_and_ring_are_told_to_the_program(bench: Workbench, tmp_path: Path) -> None:
    section = bench.panel.study
    section.widget.collapsed = False
    rows = section.rows
    assert rows.arguments() == ["--slices", 1]
    assert rows.crop.text == "whole image"
    rows.window.setCurrentIndex(rows.window.findData("lungs"))
    assert (rows.center.value, rows.width.value, rows.center.enabled) == (-600, 1500, False)
    assert "--window=-600,1500" in rows.arguments()
    rows.window.setCurrentIndex(rows.window.findData("own"))
    assert rows.center.enabled
    rows.width.setValue(1200)
    rows.slices.setValue(3)
    rows.ring.setChecked(False)
    rows.crop.setValue(32)
    assert rows.arguments() == ["--slices", 3, "--window=-600,1200", "--crop", 32, "--no-ring"]

    section.real.setCurrentPath(str(pictures(tmp_path / "real", 0, 3)))
    section.synthetic.setCurrentPath(str(pictures(tmp_path / "made", 100, 3)))
    section.into.setCurrentPath(str(tmp_path))
    section.readers.setText("A")
    section.count.setValue(6)
    bench.click(section.make)
    bench.until(lambda: not section.is_busy)
    assert "Leave the field Window out; it is for CT." in section.told.text, section.told.text
    rows.window.setCurrentIndex(rows.window.findData("told"))
    bench.click(section.make)
    bench.until(lambda: not section.is_busy)
    design = json.loads((tmp_path / "study-0001" / "design.json").read_text(encoding="utf-8"))
    assert (design["rows"], design["columns"]) == (32, 32)
    section.widget.collapsed = True
