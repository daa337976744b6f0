"""Pictures of the same anatomy as another scanner, another patient, another table would show it."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from Training.danger_ct_disease import field
from Training.danger_ct_labels import ANY, BONE, LUNG, MEDIASTINUM, OUTSIDE, SOFT, SOLID, WALL

PADDING_HU = -1024.0
DIVERSE = 0.12  # share of pictures turned by any angle


def warped(
    hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator, *, side: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A window `[side, side]` of the slice, turned, stretched, bent and mirrored; beyond it air, of unknown class."""
    angle = rng.uniform(-np.pi, np.pi) if rng.random() < DIVERSE else rng.normal(0, 0.12)
    zoom = np.exp(rng.uniform(-0.35, 0.22)) * np.exp(rng.uniform(-0.12, 0.12, 2))
    if rng.random() < 0.1:
        zoom *= rng.uniform(1.3, 2.0)  # a small field of view
    mirror = np.where(rng.random(2) < (0.12, 0.5), -1.0, 1.0)  # face down; left for right (situs is not learned)
    present = np.argwhere((labels > 0) & (labels != ANY))
    middle = present.mean(axis=0) if len(present) else np.array(labels.shape) / 2
    spread = 8.0 if rng.random() < 0.6 else 30.0
    middle = middle + rng.normal(0, spread, 2)
    row, column = np.mgrid[:side, :side].astype(np.float32) - (side - 1) / 2
    grain, force = rng.uniform(16, 40), rng.uniform(0, 3.0)
    row = row * mirror[0] / zoom[0] + force * field((side, side), grain, rng)
    column = column * mirror[1] / zoom[1] + force * field((side, side), grain, rng)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    at_row = (cos * row - sin * column + middle[0]).astype(np.float32)
    at_column = (sin * row + cos * column + middle[1]).astype(np.float32)
    picture = cv2.remap(hu, at_column, at_row, cv2.INTER_LINEAR, borderValue=PADDING_HU)
    classes = cv2.remap(labels, at_column, at_row, cv2.INTER_NEAREST, borderValue=ANY)
    return np.asarray(picture, dtype=np.float32), np.asarray(classes, dtype=np.uint8)


def hardened(
    hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """The picture with another kernel, contrast medium, noise, calibration, streaks, field of view or table."""
    if rng.random() < 0.4:
        hu = _table(hu, labels, rng)
    if rng.random() < 0.25:
        hu = cv2.GaussianBlur(hu, (0, 0), sigmaX=rng.uniform(0.4, 1.3))
    elif rng.random() < 0.3:
        hu = hu + rng.uniform(0.3, 1.2) * (hu - cv2.GaussianBlur(hu, (0, 0), sigmaX=1.0))
    if rng.random() < 0.6:
        hu = _contrast(hu, labels, rng)
    if rng.random() < 0.3:  # fat and muscle, thin and calcified bone of other people
        hu = hu + rng.normal(0, 25) * (labels == WALL) + rng.normal(0, 60) * (labels == BONE)
    if rng.random() < 0.25:  # shallow breath, or emphysema
        hu = hu + rng.uniform(-60, 150) * ((labels == LUNG) & (hu < -600))
    if rng.random() < 0.75:
        hu = hu + _noise(hu.shape, rng)
    if rng.random() < 0.12:
        hu = hu + _streaks(hu.shape, rng)
    if rng.random() < 0.3:
        hu = hu * rng.uniform(0.97, 1.03) + rng.uniform(-25, 25)
    if rng.random() < 0.15:
        hu, labels = _circle(hu, labels, rng)
    return np.asarray(hu, dtype=np.float32), labels


def _noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    strength = rng.uniform(0, 45) if rng.random() < 0.85 else rng.uniform(45, 140)
    noise = rng.standard_normal(shape).astype(np.float32)
    if rng.random() < 0.6:
        noise = cv2.GaussianBlur(noise, (0, 0), sigmaX=rng.uniform(0.4, 1.2), sigmaY=rng.uniform(0.4, 1.2))
    if rng.random() < 0.5:  # more in the middle and along the broad side of the body
        row = np.linspace(-1, 1, shape[0], dtype=np.float32)[:, np.newaxis]
        noise *= 0.5 + np.exp(-3 * row**2)
    return np.asarray(noise / (noise.std() + 1e-6) * strength, dtype=np.float32)


def _table(hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Tables, cushions and leads around the patient: shells of foam, boards, lines."""
    drawn = hu.copy()
    rows, columns = hu.shape
    for _ in range(int(rng.integers(1, 4))):
        centre = (int(rng.integers(0, columns)), int(rng.integers(0, rows)))
        axes = (int(rng.integers(10, columns)), int(rng.integers(3, 30)))
        turn, start = float(rng.uniform(0, 360)), float(rng.uniform(0, 180))
        shell, foam = float(rng.uniform(-400, 500)), float(rng.uniform(-980, -600))
        if rng.random() < 0.5:
            corner = (centre[0] + axes[0], centre[1] + axes[1])
            cv2.rectangle(drawn, centre, corner, foam, cv2.FILLED)
            cv2.rectangle(drawn, centre, corner, shell, int(rng.integers(1, 3)))
        else:
            cv2.ellipse(drawn, centre, axes, turn, start, start + 180, shell, int(rng.integers(1, 4)))
    return np.where(labels == OUTSIDE, drawn, hu).astype(np.float32)


def _contrast(hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Blood of the mediastinum brighter (or as dark as without contrast), in blobs."""
    blobs = np.clip(2 * field(hu.shape, rng.uniform(8, 20), rng) + rng.uniform(-1, 2), 0, 1)
    less = rng.random() < 0.5
    where = (MEDIASTINUM, SOFT, SOLID) if less else (MEDIASTINUM, SOFT)
    heart = cv2.GaussianBlur((np.isin(labels, where) & (hu > -50)).astype(np.float32), (0, 0), sigmaX=0.8)
    if less:
        return (hu + heart * (np.minimum(hu, 30 + 0.1 * hu) - hu)).astype(np.float32)
    return (hu + rng.uniform(60, 350) * blobs * heart).astype(np.float32)


def _streaks(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Rays from a piece of metal, or bands between the shoulders."""
    row, column = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    row -= rng.uniform(0.2, 0.8) * shape[0]
    column -= rng.uniform(0.1, 0.9) * shape[1]
    if rng.random() < 0.5:
        band = cv2.GaussianBlur(rng.standard_normal((shape[0], 1)).astype(np.float32), (0, 0), sigmaX=0.5, sigmaY=1.5)
        return np.asarray(rng.uniform(20, 120) * band * np.ones(shape, dtype=np.float32), dtype=np.float32)
    angle, distance = np.arctan2(row, column), np.hypot(row, column)
    waves = sum(np.sin(int(rng.integers(4, 40)) * angle + rng.uniform(0, 6)) for _ in range(4))
    metal = 2000 * (distance < rng.uniform(1, 4))
    return np.asarray(rng.uniform(20, 120) * waves * np.exp(-distance / rng.uniform(20, 90)) + metal, np.float32)


def _circle(
    hu: NDArray[np.float32], labels: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A round field of view that may cut the body; what it cuts off is air of unknown class."""
    row, column = np.mgrid[: hu.shape[0], : hu.shape[1]]
    middle = np.array(hu.shape) * rng.uniform(0.4, 0.6, 2)
    outside = np.hypot(row - middle[0], column - middle[1]) > rng.uniform(0.35, 0.6) * hu.shape[0]
    return np.where(outside, PADDING_HU, hu), np.where(outside, ANY, labels).astype(np.uint8)
