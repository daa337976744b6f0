"""torchvision beside this torch, in a fresh interpreter: the guard must work whatever was imported before."""

from __future__ import annotations

import subprocess
import sys

CODE = """
from HiResMedSynthLib.torchvision_guard import import_torchvision
vision = import_torchvision()
assert vision is import_torchvision()
import torch
boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 11., 11.], [20., 20., 30., 30.], [0., 0., 10., 9.9]])
scores = torch.tensor([.6, .9, .5, .95])
print(vision.ops.nms(boxes, scores, .5).tolist(), vision.ops.nms(boxes[:0], scores[:0], .5).tolist())
vision.models.resnet18(weights=None)
"""


def test_torchvision_imports_and_suppresses_boxes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[3, 2] []"
