"""The same run over dask: two worker processes, one killed in mid-run; other versions and unseen files refused."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from HiResMedSynthLib.batch import cluster
from HiResMedSynthLib.batch.cluster import cluster_engine
from HiResMedSynthLib.batch.run import run
from HiResMedSynthLib.cli.main import cli
from HiResMedSynthLib.errors import SettingsError
from Testing.batch.small_scans import files_in, plan_of

CASES = 3
WAIT_S = 120


def kill_one_worker(pids: list[int], out: Path) -> None:
    """As soon as a case is whole."""
    limit = time.monotonic() + WAIT_S
    while not list((out / ".work" / "records").rglob("*.json")) and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(pids[0], signal.SIGKILL)


def test_a_worker_killed_in_mid_run_costs_nothing(
    scans: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plan, out = plan_of(scans / "spec.toml", CASES), tmp_path / "set"
    with (
        distributed.LocalCluster(2, threads_per_worker=1, processes=True, dashboard_address=None) as workers,
        monkeypatch.context() as patch,
    ):
        address = workers.scheduler_address
        with distributed.Client(address, set_as_default=False) as client:
            pids = list(client.run(os.getpid).values())
        killer = threading.Thread(target=kill_one_worker, args=(pids, out))
        killer.start()
        done = run(
            plan, out, workers=1, on_case=lambda _done, _all, _outcome: None, engine=cluster_engine(plan, out, address)
        )
        killer.join()
        patch.setattr(cluster, "installed_versions", lambda: {"hiresmedsynth": "0.0.1"})
        with pytest.raises(SettingsError, match=r"another version of .*hiresmedsynth"):
            list(cluster_engine(plan, out, address)([[1]]))
        patch.undo()
        plan.backgrounds = tuple(replace(one, path=Path("/nowhere")) for one in plan.backgrounds)
        with pytest.raises(SettingsError, match=r"doesn't see 1 of the files and folders, /nowhere among them"):
            list(cluster_engine(plan, out, address)([[1]]))
    assert (done.made, done.failures) == (CASES, {})
    ours, whole = files_in(out / "cases"), files_in(dataset / "cases")
    assert {name for name in ours if name.endswith("case.json")}
    assert ours == {name: content for name, content in whole.items() if int(name.split("/")[1][-7:]) <= CASES}


def test_a_scheduler_that_isn_t_there_is_named(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "WAITING_S", 1)
    line = ["dataset", str(scans / "spec.toml"), "--out", str(tmp_path / "set"), "--dask", "tcp://127.0.0.1:9"]
    error = CliRunner().invoke(cli, line).exception
    assert isinstance(error, SettingsError), error
    assert "no dask scheduler at tcp://127.0.0.1:9" in str(error)
