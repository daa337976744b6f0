"""Specs: short ones work, wrong ones are refused by the name of the key, the example tells the truth."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from HiResMedSynthLib.batch.spec import read_spec
from HiResMedSynthLib.batch.spec_example import EXAMPLE
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.errors import SettingsError

FILES = '[backgrounds]\nfiles = ["scans/*"]\n'


def spec_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_two_lines_are_enough(tmp_path: Path) -> None:
    spec = read_spec(spec_of(tmp_path, FILES))
    assert (spec.cases.count, spec.output.formats, spec.backgrounds.files) == (100, ("dicom",), ("scans/*",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[backgrounds]\nfile = 'x'", "no key 'backgrounds.file'.*Did you mean 'files'"),
        ("[backgrund]\nfiles = 'x'", "no key 'backgrund'.*Did you mean 'backgrounds'"),
        ("[backgrounds]\ngenerated = { cont = 3 }", "no key 'backgrounds.generated.cont'.*Did you mean 'count'"),
        ("[cases]\ncount = 3", "'backgrounds' is missing"),
        ("[backgrounds]\n", "^backgrounds: give files"),
        (FILES + "spacing_mm = -1", "^backgrounds.spacing_mm: "),
        (FILES + "[cases]\ncount = '3'", "^cases.count: input should be a valid integer"),
        (FILES + "[cases]\ncount = 0", "^cases.count: "),
        (FILES + "[cases]\nseed = -1", "^cases.seed: "),
        (FILES + "[cases]\nlesions = [3, 1]", "^cases.lesions: \\[3, 1\\] is reversed: give \\[1, 3\\]"),
        (FILES + "[cases]\nlesions = { many = 1 }", "^cases.lesions: give a number"),
        (FILES + '[cases]\nlesions = { "\u00b2" = 1 }', "^cases.lesions: give a number"),
        (FILES + "[cases]\ntypes = { sold = 1 }", "^cases.types: there is no 'sold'"),
        (FILES + "[cases]\ntypes = { solid = 0 }", "^cases.types: all weights are zero"),
        (FILES + "[cases]\ntypes = { solid = nan }", "^cases.types: a weight of nan"),
        (FILES + "[cases]\nsize_mm = [9, 4]", "^cases.size_mm: \\[9, 4\\] is reversed: give \\[4, 9\\]"),
        (FILES + "[cases]\nsize_mm = [0, 4]", "^cases: a size of 0"),
        (FILES + "[cases]\nsize_mm = [{ range = [4, 9], wight = 1 }]", "^cases.size_mm: each part is"),
        (FILES + "[cases]\ncontrast = [1, 2]\ncnr = [1, 2]", "^cases.cnr: contrast is given too"),
        (FILES + "[cases]\nzones = 'top'", "^cases.zones: there is no 'top'"),
        (FILES + "[cases]\nnegatives = 1.5", "^cases.negatives: "),
        (FILES + "[cases]\npaired = 1", "^cases.paired: "),
        (FILES + "[cases]\ngenerator = 'deform'\nmodel = 'x'", "^cases: the generator 'deform' uses no model"),
        (FILES + "[output]\nformats = ['dicon']", "^output.formats.0: .*'dicom'"),
        (FILES + "[output]\nformats = []", "^output.formats: give each once"),
        (FILES + "[output]\nsplit = { train = 1, tst = 1 }", "^output.split.tst: "),
        (FILES + "[output]\nsplit = { train = 0 }", "^output.split: each share is above zero"),
        (FILES + "[output]\nname = '../x'", "^output.name: "),
        ("a = ", "the spec is no TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_spec(spec_of(tmp_path, text))


def test_the_example_works_and_its_comments_are_the_defaults(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli, ["dataset", "--example"])
    assert (printed.exit_code, printed.output) == (0, EXAMPLE)
    plain = read_spec(spec_of(tmp_path, EXAMPLE))
    assert plain == read_spec(spec_of(tmp_path, FILES))
    # None unless they are given
    wishes = ("generated", "spacing_mm", "domain", "modality", "contrast", "cnr", "zones", "model")
    lines = [line for line in EXAMPLE.splitlines() if not line.startswith(tuple(f"# {name} =" for name in wishes))]
    told = re.sub(r"^# (?=[a-z_]+ = )", "", "\n".join(lines), flags=re.MULTILINE)
    spec = read_spec(spec_of(tmp_path, told))
    assert spec.model_copy(update={"output": plain.output}) == plain
    assert spec.output.split == {"train": 0.8, "val": 0.1, "test": 0.1}


def test_the_spec_in_the_docs_works(tmp_path: Path) -> None:
    told = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    spec = read_spec(spec_of(tmp_path, told.split("```toml\n")[1].split("```")[0]))
    assert (spec.backgrounds.slices, spec.cases.count) == ("each", 1000)


def test_the_count_is_no_part_of_what_a_data_set_is(tmp_path: Path) -> None:
    spec = read_spec(spec_of(tmp_path, FILES))
    assert spec.sha256 == spec.with_count(7).sha256
    assert spec.sha256 != read_spec(spec_of(tmp_path, FILES + "[cases]\nseed = 1")).sha256
