"""Descriptors packed from a folder of films; what an attacker gets back from them."""

from __future__ import annotations

import csv
import hashlib
import json
from itertools import count
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from HiResMedSynthLib.patient_split import held_out_by_rule
from HiResMedSynthLib.privacy import KIND, describe, read_descriptors, small_film, write_descriptors
from HiResMedSynthLib.weights import Card, read_card
from Testing.benchmarks.privacy_gate import share, tell_on_card
from Testing.test_privacy import chest
from Training.pack_descriptors import attack, main


def test_a_folder_of_films_becomes_a_release_file(tmp_path: Path) -> None:
    held_out = [str(number) for number in range(200) if held_out_by_rule(str(number))][:9]
    training = [str(number) for number in range(200) if not held_out_by_rule(str(number))][:12]
    columns = ("image", "patient_id", "orig_width", "orig_height", "orig_spacing_x_mm", "orig_spacing_y_mm", "sex")
    folder = tmp_path / "films"
    folder.mkdir()
    with (folder / "index.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(columns)
        for seed, patient in zip(count(), [*held_out, *training], strict=False):
            Image.fromarray(((chest(seed) + 1) * 127).astype(np.uint8)).save(folder / f"{seed}.png")
            lines.writerow((f"{seed}.png", patient, 256, 256, 1.6, 1.6, "F"))
    target, listed = tmp_path / "out" / "cxr_descriptors.safetensors", tmp_path / "out" / "release.json"
    listed.parent.mkdir()
    listed.write_text('{"cxr.safetensors": "0"}')
    line = [target, "--data", folder, "--cache", tmp_path / "cache", "--preset", "tiny", "--release"]
    assert CliRunner().invoke(main, list(map(str, line))).exit_code == 2  # whose films they are must be said
    line += ["--licence", "CC0-1.0", "--attribution", "nobody", "--what", "phantoms"]
    done = CliRunner().invoke(main, [*map(str, line), "--show", str(tmp_path / "show.png")], catch_exceptions=False)
    assert done.exit_code == 0
    assert json.loads(done.output)["bytes"] == target.stat().st_size
    descriptors = read_descriptors(target)
    assert (len(descriptors.signs), descriptors.unlearned) == (12, 21)
    card = read_card(target)
    assert (card.kind, card.details["films"]) == (KIND, 12)
    hashes = json.loads(listed.read_text())
    assert hashes == {"cxr.safetensors": "0", target.name: hashlib.sha256(target.read_bytes()).hexdigest()}
    with Image.open(tmp_path / "show.png") as shown:
        assert shown.size == (5 * 256, 3 * 256)


def test_what_can_be_rebuilt_tells_little_beyond_the_mean_film() -> None:
    films = np.stack([small_film(chest(seed)) for seed in range(40)])
    training, others, chosen = films[:30], films[30:], [0, 10, 20]
    rebuilt = attack(training, others, chosen, describe(training[:1], others[:8]).scale)
    mean = training.mean(axis=0)
    alike = [
        np.corrcoef((a - mean).ravel(), (b - mean).ravel())[0, 1]
        for a, b in zip(rebuilt, training[chosen], strict=True)
    ]
    assert np.mean(alike) < 0.6


def test_what_the_gate_catches_stands_on_its_card(tmp_path: Path) -> None:
    file = tmp_path / "x_descriptors.safetensors"
    descriptors = describe([chest(seed) for seed in range(2)], [chest(1000 + seed) for seed in range(8)])
    card = Card(name=file.stem, kind=KIND, data="phantoms", licence="CC0-1.0", attribution="nobody", metrics={"a": 1.0})
    write_descriptors(file, descriptors, card)
    measured = {"caught_whole_copies": share([True] * 599 + [False]), "false_alarms_of_all": share([False] * 40)}
    tell_on_card(file, measured)
    told = read_card(file).metrics
    assert told["a"] == 1.0
    assert told["planted_copies_caught"] == "599 of 600 (0.9907 to 1.0000)"  # Clopper-Pearson
    assert told["other_patients_taken_for_copies"] == "0 of 40 (0.0000 to 0.0881)"  # 1 - .025 ** (1 / 40)
    again = read_descriptors(file)
    np.testing.assert_array_equal(again.signs, descriptors.signs)
    assert again.limits == descriptors.limits
    listed = json.loads((tmp_path / "release.json").read_text())
    assert listed == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
