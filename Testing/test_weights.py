"""The model store: cards, names, hashes; whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from HiResMedSynthLib import weights
from HiResMedSynthLib.weights import Card, ModelError
from Testing.test_cli import run


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(weights.STORE_VARIABLE, str(tmp_path / "store"))
    return tmp_path / "store"


def card(**fields: object) -> Card:
    texts = {"name": "lungs", "kind": "background", "data": "12 films", "licence": "CC0-1.0", "attribution": "nobody"}
    return Card(**{**texts, **fields})  # type: ignore[arg-type]


def written(folder: Path, **fields: object) -> Path:
    file = folder / "made.safetensors"
    weights.write_model(file, {"a": np.arange(6, dtype=np.float32)}, card(**fields))
    return file


def own_names(kind: str | None = None) -> list[str]:
    """Names of the user's own models: those of the release are there besides."""
    return [model.card.name for model in weights.models(kind) if not model.shipped]


def test_an_added_model_is_found_shown_and_removed(tmp_path: Path, store: Path) -> None:
    file = written(tmp_path, seed=3, metrics={"auc": 0.61}, details={"type": "solid"})
    added = weights.add(file)
    found = weights.find("lungs", "background")
    assert found == added
    assert found.card.metrics == {"auc": 0.61}
    assert (found.card.seed, found.card.bytes) == (3, file.stat().st_size)
    assert len(found.card.sha256) == 64
    assert own_names() == ["lungs"]
    assert not own_names("lesion-flow")
    assert sorted(path.name for path in store.iterdir()) == ["lungs.json", "lungs.safetensors"]
    weights.remove("lungs")
    assert list(store.iterdir()) == []
    with pytest.raises(ModelError, match="there is no model"):
        weights.find("lungs")


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_model_is_readable_as_other_files_are(tmp_path: Path, store: Path) -> None:
    before = os.umask(0o022)
    try:
        assert weights.add(written(tmp_path)).path.stat().st_mode & 0o777 == 0o644
        os.umask(0o027)
        assert weights.add(written(tmp_path), "ours").path.stat().st_mode & 0o777 == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_model_may_be_kept_under_another_name_once(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert weights.add(file, "ours").card.name == "ours"
    assert weights.find("ours").card.name == "ours"
    for name in ("ours", "OURS"):
        with pytest.raises(ModelError, match="already"):
            weights.add(file, name)


def test_of_two_that_add_one_name_at_the_same_time_the_second_is_refused(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    for data in ("6 films", "12 films"):
        (tmp_path / data).mkdir()
        made.append(written(tmp_path / data, data=data))
    looked = weights._files

    def looks_long() -> list[tuple[Path, bool]]:
        """Both have looked, and found the name free, before either has taken it."""
        found = looked()
        time.sleep(0.3)
        return found

    def add(file: Path) -> weights.Model | ModelError:
        try:
            return weights.add(file)
        except ModelError as error:
            return error

    monkeypatch.setattr(weights, "_files", looks_long)
    with ThreadPoolExecutor(2) as pool:
        added = list(pool.map(add, made))
    refused = [one for one in added if isinstance(one, ModelError)]
    assert len(refused) == 1 and "already" in refused[0].what
    (first,) = [one for one in added if isinstance(one, weights.Model)]
    assert weights.find("lungs").card == first.card
    assert sorted(path.name for path in store.iterdir()) == ["lungs.json", "lungs.safetensors"]


@pytest.mark.parametrize("at", [-1, 20])
def test_a_changed_byte_is_noticed_at_use(tmp_path: Path, at: int) -> None:
    path = weights.add(written(tmp_path)).path
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError) as refused:
        weights.find("lungs")
    assert "remove lungs" in refused.value.remedy or ".safetensors" in refused.value.remedy
    assert "lungs" in weights.damaged()
    weights.remove("lungs")  # damaged ones too


def test_a_model_without_its_record_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = weights.add(written(tmp_path)).path
    with pytest.raises(ModelError, match="'lungs' makes backgrounds; needed: one that draws variants of one lesion"):
        weights.find("lungs", "lesion-singan")
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(ModelError, match="no hash is recorded"):
        weights.find("lungs")
    assert not own_names()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0b", "con", "NUL.x", "-x", "x.", "a..b", "x" * 61]
)
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    for use in (lambda: weights.add(written(tmp_path), name), lambda: weights.find(name), lambda: weights.remove(name)):
        with pytest.raises(ModelError, match="can't name a model"):
            use()


class Trap:
    def __reduce__(self) -> tuple[object, tuple[int]]:
        return sys.exit, (3,)


def test_files_that_are_no_models_leave_nothing(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.numpy import save

    array = {"a": np.zeros(2, np.float32)}
    whole = written(tmp_path).read_bytes()
    contents = {
        "empty": b"",
        "pickle": pickle.dumps(Trap()),
        "zip": b"PK\x03\x04" + bytes(100),
        "no card": save(array),
        "card is text": save(array, {"card": "hello"}),
        "card is a list": save(array, {"card": "[1]"}),
        "card lacks fields": save(array, {"card": '{"name": "x"}'}),
        "card with NaN": save(array, {"card": card().to_json().replace('"seed": null', '"seed": NaN')}),
        "card is huge": save(array, {"card": card(data="x" * 70_000).to_json()}),
        "name is a path": save(array, {"card": card().to_json().replace('"lungs"', '"../lungs"')}),
        "cut off": whole[:-5],
        "header beyond the end": (2**40).to_bytes(8, "little") + whole[8:],
    }
    for what, content in contents.items():
        file = tmp_path / "odd.safetensors"
        file.write_bytes(content)
        with pytest.raises(ModelError) as refused:
            weights.add(file)
        assert refused.value.remedy, what
        assert list(store.iterdir()) == [], what
    with pytest.raises(ModelError, match="can't be read"):
        weights.add(tmp_path / "absent.safetensors")
    monkeypatch.setattr(weights, "LARGEST_BYTES", 100)
    with pytest.raises(ModelError, match="larger than"):
        weights.add(written(tmp_path))
    assert list(store.iterdir()) == []


PLACES = ["see " + "/" + "home/x/y", "~/data", "C:\\data\\x", "in D:/ct", "\\\\server\\share", "file:x"]


PLACES = [*PLACES, "films in patients/Smith_John/ct1.dcm", "../ct.nii.gz", r"of data\Smith\ct1.DCM", "(run-2/best.pt)"]


@pytest.mark.parametrize("text", PLACES)
def test_a_card_names_no_path(text: str) -> None:
    with pytest.raises(ModelError, match="file or folder"):
        card(data=text)
    with pytest.raises(ModelError, match="file or folder"):
        card(details={"source": [text]})


def test_a_card_may_name_an_address_and_a_ratio() -> None:
    card(licence="CC BY 3.0, https://creativecommons.org/licenses/by/3.0/", data="12 mAs/slice, solid and/or calcified")
    card(data="in HU/mm; doi 10.7937/K9/TCIA.2015.LO9QL9SX, https://host.org/a/b.zip, github.com/a/b.json. Yes/no.")


@pytest.mark.parametrize(
    "wrong", [{"kind": "No Kind"}, {"metrics": {"auc": float("inf")}}, {"details": {"a": object()}}]
)
def test_a_card_that_cant_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError):
        card(**wrong)


def test_shipped_models_are_checked_by_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package"
    folder = package / "lesion" / "weights"
    folder.mkdir(parents=True)
    file = written(folder)
    monkeypatch.setattr(weights, "__file__", str(package / "weights.py"))
    digest = weights.hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / weights.RELEASE_FILE).write_text(json.dumps({file.name: digest}))
    assert weights.find("made").shipped
    with pytest.raises(ModelError, match="came with the release"):
        weights.remove("made")
    with pytest.raises(ModelError, match="already"):
        weights.add(file, "made")
    (folder / weights.RELEASE_FILE).write_text(json.dumps({file.name: "0" * 64}))
    with pytest.raises(ModelError, match="hash differs") as refused:
        weights.find("made")
    assert "Reinstall" in refused.value.remedy


def test_the_store_lies_in_the_data_folder_of_each_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(weights.STORE_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    for platform, part in (("linux", tmp_path), ("win32", tmp_path / "local"), ("darwin", Path.home() / "Library")):
        monkeypatch.setattr(sys, "platform", platform)
        assert weights.store_folder().is_relative_to(part)
        assert weights.store_folder().parts[-2:] == ("HiResMedSynth", "models")
    assert not own_names()  # a store that isn't there yet


def test_a_store_that_cant_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(ModelError, match="can't be written"):
        weights.add(written(tmp_path))


def test_models_are_listed_in_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights.add(written(tmp_path))
    weights.add(written(tmp_path, kind="background-descriptors"), "beside")
    assert run(monkeypatch, "models", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    ours = [line for line in lines if " you " in line]
    assert len(ours) == 2
    assert {line.index(" you ") + 1 for line in ours} == {lines[0].index("from")}
