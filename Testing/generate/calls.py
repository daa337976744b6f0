"""A call of `generate` with the untrained model."""

from __future__ import annotations

from pathlib import Path

import pytest

from Testing.test_cli import run


def generate(patch: pytest.MonkeyPatch, out: Path, *more: object) -> int:
    return run(patch, "generate", "--model", "ours", "--out", out, *more)
