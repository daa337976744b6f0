"""Under which names and ports the backend is reached, and where it computes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import requests
import torch

from HiResMedSynthLib.service.client import BackendClient
from HiResMedSynthLib.service.jobs import chosen_device
from HiResMedSynthLib.service.protocol import TOKEN_VARIABLE
from Testing.service.conftest import PROGRAM, Backend, start


def test_a_server_that_listens_everywhere_answers_to_the_names_of_its_certificate(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "server.pem"
    names = ["-subj", "/CN=gpu", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], capture_output=True, check=True)
    running = start("--host", "0.0.0.0", "--tls-certificate", str(certificate), "--tls-key", str(key))
    for name in ("localhost", "127.0.0.1"):
        client = BackendClient(f"https://{name}:{running.port}", running.token, verify=str(certificate))
        assert client.health()["device"] == "auto"  # torch isn't loaded for that
    running.process.kill()


def test_a_tunnel_of_another_port_reaches_the_backend_but_no_other_name(backend: Backend) -> None:
    url, token = f"http://127.0.0.1:{backend.port}/health", {"Authorization": f"Bearer {backend.token}"}
    foreign = ("[::1]", "127.0.0.1.attacker.example", "127.0.0.1:9000:9", "")
    for host, status in (("127.0.0.1:9000", 200), ("localhost", 200), *((name, 421) for name in foreign)):
        assert requests.get(url, headers={**token, "Host": host}, timeout=20).status_code == status, host


def test_a_device_that_is_not_there_is_refused_before_the_backend_listens() -> None:
    refused = subprocess.run(
        [PROGRAM, "serve", "--device", "tpu"],
        env={**os.environ, TOKEN_VARIABLE: "x" * 64}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "no device 'tpu'" in refused.stderr and not refused.stdout


def test_auto_is_the_gpu_that_can_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_kernel(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    ones = torch.ones(1)
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: ones)
    assert (chosen_device("auto"), chosen_device("cpu")) == ("cuda", "cpu")
    monkeypatch.setattr(torch, "zeros", no_kernel)
    assert (chosen_device("auto"), chosen_device("cuda")) == ("cpu", "cuda")
