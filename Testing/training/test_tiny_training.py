"""The film cascade's trainer with its tiny preset on films made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from HiResMedSynthLib.errors import ReadError
from HiResMedSynthLib.patient_split import held_out_by_rule
from Testing.training.film_folder import lungs, size, write_films
from Testing.training.two_processes import run_in_two_processes
from Training.augment import apply_film_change, draw_film_change, no_change
from Training.checkpoint import best_weights
from Training.draws import Draws
from Training.film_data import load_films
from Training.film_stages import draw_known
from Training.preset_files import PRESETS, read_preset, stages_of
from Training.train_background import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films of eight patients, two of them held out, squeezed and of different true sizes."""
    rng = np.random.default_rng(0)
    return write_films(
        tmp_path_factory.mktemp("films"),
        learned=6,
        picture=lambda _: lungs(0.3) + rng.normal(0, 4, (96, 96)),
        row=lambda number: {
            "sex": "FM"[number % 2],
            **(size(2500, 2048, 0.168) if number % 2 else size(2048, 2500, 0.168)),
        },
    )


def run(folder: Path, out: Path, *more: str) -> Result:
    line = ["--data", str(folder), "--preset", "tiny", "--out", str(out), "--cache", str(folder / "cache"), *more]
    return CliRunner().invoke(main, line)


def test_what_can_not_be_trained_is_told_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    bare = tmp_path / "films"
    bare.mkdir()
    write_films(bare, learned=4, picture=lambda _: lungs(0.3), row=lambda _: {})
    told = run(bare, tmp_path / "bare", "--stage", "film")
    assert (told.exit_code, told.exception.__class__) == (1, SystemExit), told.output
    assert "tells its pixel spacing" in told.output
    assert run(folder, tmp_path / "film", "--stage", "film").exit_code == 0
    for more, said in (
        (("--stage", "detail-256", "--start-from", str(tmp_path / "film")), "another network"),
        (("--stage", "film", "--teacher", str(tmp_path / "film")), "lacks 'shortcut'"),
    ):
        told = run(folder, tmp_path / more[1], *more)
        assert (told.exit_code, told.exception.__class__) == (1, SystemExit), told.output
        assert said in told.output


@pytest.mark.parametrize("stage", stages_of(read_preset("tiny")))
def test_each_stage_trains_and_leaves_a_whole_run(folder: Path, tmp_path: Path, stage: str) -> None:
    result = run(folder, tmp_path / "run", "--stage", stage)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 3, 6]
    assert all(np.isfinite([line["measured_train"], line["measured_held_out"]]).all() for line in lines)
    assert np.isfinite([line["loss"] for line in lines[1:]]).all()
    assert lines[2]["measured_train"] < lines[1]["measured_train"]
    told = [name for name in ("code_use", "code_perplexity") if all(name in line for line in lines)]
    assert told == (["code_use", "code_perplexity"] if stage == "film" else [])
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["first"], report["last"]) == (lines[0], lines[2])
    assert "<polyline" in (tmp_path / "run" / "report.html").read_text()
    with safe_open(tmp_path / "run" / "checkpoint.safetensors", framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    assert state["description"]["stage"] == stage
    assert state["description"]["films"] == 6
    assert state["description"]["unit"] > 0
    assert np.asarray(Image.open(tmp_path / "run" / "sheet-000006.png")).std() > 0


def test_resumed_run_equals_an_uninterrupted_one(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "whole", "--stage", "film").exit_code == 0
    assert run(folder, tmp_path / "cut", "--stage", "film", "--steps", "3").exit_code == 0
    refused = run(folder, tmp_path / "cut", "--stage", "film")
    assert refused.exit_code != 0
    assert "--resume" in refused.output
    assert run(folder, tmp_path / "cut", "--stage", "film", "--resume").exit_code == 0
    whole, cut = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert any(name.startswith("exp_avg_sq.") for name in whole)
    for name, value in whole.items():
        assert torch.equal(value, cut[name]), name


def test_two_processes_take_the_step_that_one_takes_in_two_parts(folder: Path, tmp_path: Path) -> None:
    """The same draws, the same mean of their gradients: the same weights, whoever computes them."""
    few = ("--stage", "film", "--steps", "3")
    where = ["--data", str(folder), "--preset", "tiny", "--cache", str(folder / "cache")]
    run_in_two_processes("Training.train_background", [*where, "--out", str(tmp_path / "two"), *few])
    assert run(folder, tmp_path / "one", *few, "--loop", "accumulate=2").exit_code == 0
    logs = {name: (tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")}
    one, two = ([json.loads(line) for line in lines] for lines in logs.values())
    assert [line["step"] for line in two] == [0, 3]  # written by the first alone
    assert two[1]["processes"] == 2
    assert two[1]["loss"] == pytest.approx(one[1]["loss"], abs=1e-4)
    alone, both = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "two"))
    assert alone.keys() == both.keys()
    for name, value in alone.items():
        torch.testing.assert_close(both[name], value, atol=1e-6, rtol=1e-4)


def test_checkpoint_of_another_stage_or_other_layers_is_refused(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "run", "--stage", "film", "--steps", "1").exit_code == 0
    refused = run(folder, tmp_path / "run", "--stage", "detail-256", "--resume")
    assert refused.exit_code != 0
    assert "another stage" in refused.output
    wider = (PRESETS / "tiny.toml").read_text().replace("widths = [8, 16]", "widths = [8, 24]")
    (tmp_path / "wider.toml").write_text(wider)
    refused = run(folder, tmp_path / "run", "--stage", "film", "--resume", "--preset", str(tmp_path / "wider.toml"))
    assert refused.exit_code != 0
    assert "doesn't fit this preset" in refused.output


def test_films_get_their_true_shape_and_stay_with_their_patient(folder: Path, tmp_path: Path) -> None:
    films = load_films(folder, tmp_path, canvas_px=256, spacing_mm=1.68)
    assert {film.field[2:] for film in films.films} == {(250, 205), (205, 250)}
    assert [film.held_out for film in films.films] == [held_out_by_rule(film.patient) for film in films.films]
    assert films.masks().sum() == 8 * 250 * 205
    assert films.pixels.min() == pytest.approx(-1, abs=1e-3)
    assert films.pixels.max() == pytest.approx(1, abs=1e-3)


def test_one_patient_only_is_refused(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "index.csv").read_text().splitlines()
    (tmp_path / "index.csv").write_text("\n".join(lines[:2]) + "\n")
    (tmp_path / lines[1].split(",")[0]).write_bytes((folder / lines[1].split(",")[0]).read_bytes())
    with pytest.raises(ReadError, match="of one patient"):
        load_films(tmp_path, tmp_path / "cache", canvas_px=256, spacing_mm=1.68)


def test_missing_column_and_damaged_film_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "index.csv").write_text("image,patient_id\na.png,1\n")
    with pytest.raises(ReadError, match="orig_width"):
        load_films(tmp_path, tmp_path / "cache", canvas_px=256, spacing_mm=1.68)
    (tmp_path / "index.csv").write_text("\n".join((folder / "index.csv").read_text().splitlines()[:2]) + "\n")
    name = (folder / "index.csv").read_text().splitlines()[1].split(",")[0]
    (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(ReadError, match=name):
        load_films(tmp_path, tmp_path / "cache", canvas_px=256, spacing_mm=1.68)


def test_a_part_of_a_changed_film_is_that_part_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    films = torch.from_numpy(rng.uniform(-1, 1, (2, 1, 64, 64)).astype(np.float32))
    change = draw_film_change(Draws.of(rng, "cpu"), 2)
    fields = torch.tensor([[0, 0, 64, 64], [8, 0, 40, 64]])
    whole, inside = apply_film_change(films, fields, change, corners=torch.zeros(2, 2).long(), size=64)
    part, _ = apply_film_change(films, fields, change, corners=torch.tensor([[20, 8], [0, 30]]), size=24)
    torch.testing.assert_close(part[0], whole[0, :, 20:44, 8:32], atol=1e-4, rtol=0)
    torch.testing.assert_close(part[1], whole[1, :, :24, 30:54], atol=1e-4, rtol=0)
    assert whole.abs().max() <= 1
    assert 0.7 < float(inside[0].mean()) <= 1
    assert 0.4 < float(inside[1].mean()) < 0.75


def test_no_change_changes_nothing() -> None:
    films = torch.rand(1, 1, 32, 32) * 2 - 1
    same, inside = apply_film_change(
        films, torch.tensor([[4, 0, 28, 32]]), no_change(1), corners=torch.zeros(1, 2).long(), size=32
    )
    torch.testing.assert_close(same, films, atol=1e-5, rtol=0)
    assert float(inside.mean()) == 28 / 32


def test_a_mask_of_its_own_moves_with_the_film() -> None:
    films = torch.zeros(1, 2, 32, 32)
    films[:, :, :, :16] = 1
    part, inside = apply_film_change(
        films, torch.tensor([[0, 0, 32, 32]]), no_change(1), corners=torch.tensor([[0, 8]]), size=16
    )
    assert part.shape == inside.shape == (1, 1, 16, 16)
    assert float(inside.mean()) == 0.5


def test_codes_told_are_none_all_or_a_part() -> None:
    known = draw_known(Draws.seeded(0, "cpu"), 400, 8)[:, 0].mean(dim=(1, 2)).numpy()
    assert 0.3 < (known == 0).mean() < 0.5
    assert 0.12 < (known == 1).mean() < 0.3
    assert np.all((known >= 0) & (known <= 1))


def test_a_detail_stage_is_distilled_into_its_few_steps(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "detail", "--stage", "detail-1024").exit_code == 0
    result = run(folder, tmp_path / "fast", "--stage", "detail-1024", "--teacher", str(tmp_path / "detail"))
    assert result.exit_code == 0, result.output
    taught, student = (best_weights(tmp_path / name) for name in ("detail", "fast"))
    with safe_open(student, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["description"]["shortcut"] == [0.0, 0.5, 1.0]
    assert any(not torch.equal(value, load_file(student)[name]) for name, value in load_file(taught).items())


def test_training_starts_from_the_weights_of_another_run(folder: Path, tmp_path: Path) -> None:
    assert run(folder, tmp_path / "one", "--stage", "detail-256").exit_code == 0
    more = ["--stage", "detail-256", "--start-from", str(tmp_path / "one"), "--steps", "0"]
    assert run(folder, tmp_path / "two", *more).exit_code == 0
    begun, end = load_file(best_weights(tmp_path / "one")), load_file(tmp_path / "two" / "checkpoint.safetensors")
    assert all(torch.equal(end[name], value) for name, value in begun.items())


def test_an_unknown_stage_names_those_there_are(folder: Path, tmp_path: Path) -> None:
    refused = run(folder, tmp_path / "run", "--stage", "detail-512")
    assert refused.exit_code != 0
    assert "detail-256" in refused.output
