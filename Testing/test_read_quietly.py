"""Files are read in several threads: the process's switches are shared, and are afterwards as they were before."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.read import read_image
from HiResMedSynthLib.read_quietly import quietly

FILM = Path(__file__).parent / "data" / "cxr" / "nih_cxr_dx.dcm"


def switches() -> tuple[object, ...]:
    settings = pydicom.config.settings
    return settings.reading_validation_mode, settings.writing_validation_mode, tuple(warnings.filters)


def test_the_first_thread_to_leave_takes_nothing_from_the_others_and_the_last_puts_all_back() -> None:
    before, entered, leave = switches(), threading.Event(), threading.Event()

    def first() -> None:
        with quietly():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(10)
    with quietly():
        inside = switches()
        assert inside != before
        leave.set()
        thread.join()
        assert switches() == inside
        with pytest.raises(ValueError, match="within"), quietly():
            raise ValueError("within")
        assert switches() == inside
    assert switches() == before


def test_reading_in_threads_leaves_values_judged_and_warnings_shown() -> None:
    before = switches()
    with ThreadPoolExecutor(8) as pool:
        shapes = {image.shape for image in pool.map(read_image, [FILM] * 24)}
    assert len(shapes) == 1
    assert switches() == before


def test_a_picture_that_pillow_only_warns_of_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(np.zeros((12, 12), np.uint8)).save(tmp_path / "wide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ReadError, match="too large"):
        read_image(tmp_path / "wide.png")
