"""Texture features and statistics of single images, against phantoms, waves and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation import texture_features as texture
from HiResMedSynthLib.evaluation.image_statistics import image_statistics, noise_power, spectrum
from Testing.evaluation.films import film


def named(image: np.ndarray) -> dict[str, float]:
    return dict(zip(texture.feature_names(), texture.texture_features(image), strict=True))


def test_every_feature_has_a_name_and_a_value() -> None:
    assert len(set(texture.feature_names())) == 125
    for image in (film(1) / 255, np.full((40, 56), 0.3), np.zeros((33, 32)), np.eye(48)):
        assert np.isfinite(texture.texture_features(image)).all()
    with pytest.raises(SettingsError, match="32 pixels"):
        texture.texture_features(np.zeros((31, 64)))
    with pytest.raises(SettingsError):
        texture.texture_features(np.full((64, 64), np.nan))


def test_first_order_features_by_hand() -> None:
    image = np.zeros((32, 32))
    image[:, 16:] = 0.5
    found = named(image)
    assert found["grey, mean"] == pytest.approx(0.25)
    assert found["grey, sd"] == pytest.approx(0.25)
    assert found["grey, skewness"] == pytest.approx(0, abs=1e-9)
    assert found["grey, kurtosis"] == pytest.approx(1)
    assert found["grey, entropy"] == pytest.approx(1)  # two values, equally often: one bit


def test_an_even_image_has_one_local_pattern() -> None:
    found = named(np.full((40, 40), 0.7))
    assert found["local pattern 8 at full size"] == 1
    assert found["pairs at full size 1 px apart, contrast"] == 0
    assert found["pairs at full size 1 px apart, energy"] == 1


def test_co_occurrence_agrees_with_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.feature")
    levels = film(2).astype(np.int64) // 8
    table = skimage.graycomatrix(levels, [3], [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4], levels=32, symmetric=True)
    # their diagonal neighbours at distance 3 lie 2 apart each way; ours 3 each way: rows and columns only
    both = table[:, :, :, [0, 2]].sum(axis=3, keepdims=True).astype(float)
    both /= both.sum()
    names = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation")
    theirs = [float(skimage.graycoprops(both, name)[0, 0]) for name in names]
    straight = texture._measures(texture._counts(levels, [(0, 3), (3, 0)]))
    assert [straight[k] for k in (0, 1, 2, 3, 5)] == pytest.approx(theirs, rel=1e-9)


def test_local_patterns_by_hand() -> None:
    steps = np.zeros((34, 34))
    steps[:, 17:] = 1.0  # 32 columns of middles: left of the edge all 8 neighbours are as bright, or brighter
    found = named(steps)
    assert found["local pattern 5 at full size"] == pytest.approx(1 / 32)  # 3 darker ones on its left
    assert found["local pattern 8 at full size"] == pytest.approx(31 / 32)


def test_blur_and_noise_are_seen_in_their_bands() -> None:
    sharp, soft, grainy = film(5), film(5, blur=1.5), film(5, noise=20)
    high = "log power 0.3-0.4 c/px"
    assert named(soft / 255)[high] < named(sharp / 255)[high] - 1 < named(grainy / 255)[high]
    assert named(soft / 255)["wavelet 1 both, log sd"] < named(sharp / 255)["wavelet 1 both, log sd"]
    curve = spectrum((sharp / 255).astype(np.float32))
    assert curve.shape == (24,)
    assert curve[-1] < curve[0]


def test_noise_power_of_known_noise() -> None:
    rng = np.random.default_rng(0)
    white = 10 * rng.normal(size=(256, 256))
    sd, middle = noise_power(white)
    assert sd == pytest.approx(10, rel=0.05)
    assert middle == pytest.approx(0.39, abs=0.01)
    soft_sd, soft_middle = noise_power(gaussian_filter(white, 1.0))
    assert soft_middle < 0.25
    assert soft_sd < 4
    ramp = white + np.linspace(0, 2000, 256)[:, None]  # a slope is no noise
    assert noise_power(ramp)[0] == pytest.approx(10, rel=0.05)
    padded = np.pad(white, 128, constant_values=-1000)  # nor is the absence of any outside the field of view
    assert noise_power(padded)[0] == pytest.approx(10, rel=0.1)
    assert np.isnan(noise_power(np.zeros((256, 256)))).all()


def test_hu_by_tissue_in_a_phantom() -> None:
    rows, columns = np.mgrid[:128, :128] - 64
    hu = np.full((128, 128), -1000.0)
    hu[np.hypot(rows, columns) < 55] = 45
    hu[np.hypot(rows, columns + 20) < 15] = -850
    hu[np.hypot(rows - 30, columns) < 9] = 600
    hu[:6] = 45  # the table, not the body
    found = image_statistics(((hu + 1350) / 1500).clip(0, 1).astype(np.float32), hu)
    assert found["lung, mean HU"] == pytest.approx(-850, abs=1)
    assert found["soft tissue, mean HU"] == pytest.approx(45)
    assert found["bone, mean HU"] == pytest.approx(600)
    assert found["lung, share of the body"] == pytest.approx(15**2 / 55**2, rel=0.03)
    assert np.isnan(found["fat, mean HU"])
