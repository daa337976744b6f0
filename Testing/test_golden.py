"""Golden cases: drawn once, kept with the hash of the pixels that they must give on any machine, without torch.

`python -m Testing.test_golden` draws them anew: only when the format of a case changes, and CHANGELOG says so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.case_file import read_case, write_case
from HiResMedSynthLib.compose import compose
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.read import read_image

DATA = Path(__file__).resolve().parent / "data"
GOLDEN = DATA / "golden"
NAMES = ("ct-alpha", "ct-paper", "cxr-alpha", "cxr-paper")


def background(name: str) -> MedicalImage:
    if name.startswith("ct"):
        return read_image(DATA / "ct_series")
    return read_image(DATA / "cxr" / "nih_cxr_dx.dcm", spacing_mm=(0.342, 0.4175))


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_case_gives_its_pixels_bit_for_bit(name: str) -> None:
    expected = json.loads((GOLDEN / "pixel_sha256.json").read_text())[name]
    assert compose(background(name), read_case(GOLDEN / name)).image.pixel_sha256 == expected


def test_a_replay_loads_no_torch_and_no_simpleitk() -> None:
    code = """
import sys
from Testing.test_golden import background, GOLDEN
from HiResMedSynthLib.case_file import read_case
from HiResMedSynthLib.compose import compose
compose(background("ct-alpha"), read_case(GOLDEN / "ct-alpha"))
print({"torch", "SimpleITK"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=DATA.parents[1])
    assert done.stdout.strip() == "set()"


def main() -> None:
    hashes = {}
    for name in NAMES:
        image, fusion = background(name), name.split("-")[1]
        size = (10.0, 15.0) if name.startswith("ct") else (14.0, 22.0)
        requests = tuple(LesionRequest(size_mm=size, seed=seed) for seed in range(2))
        domain = "lung-ct" if name.startswith("ct") else "cxr"
        case = draw_case(image, CaseSettings(requests=requests, domain=domain, fusion=fusion), seed=11)  # type: ignore[arg-type]
        (GOLDEN / name).mkdir(parents=True, exist_ok=True)
        write_case(case, GOLDEN / name)
        hashes[name] = compose(image, case).image.pixel_sha256
    (GOLDEN / "pixel_sha256.json").write_text(json.dumps(hashes, indent=1) + "\n")


if __name__ == "__main__":
    main()
