"""Metrics of pairs: by hand, inside and outside of masks, and against scikit-image and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.findings import DIFFERS, TOO_FEW
from HiResMedSynthLib.evaluation.metrics import PAPER_DB, ms_ssim, nmse, psnr, ssim, ssim_map
from HiResMedSynthLib.evaluation.pair_rows import method_rows, pair_rows
from HiResMedSynthLib.evaluation.pairs import PairNumbers, pair_numbers
from HiResMedSynthLib.torchvision_guard import import_torchvision
from Testing.evaluation.films import film


def two(size: int = 192) -> tuple[np.ndarray, np.ndarray]:
    """A film in 0..1, and the same with noise and another contrast."""
    one = np.kron(film(1), np.ones((size // 96,) * 2)) / 255
    rng = np.random.default_rng(0)
    return one, np.clip(0.1 + 0.8 * one + 0.03 * rng.normal(size=one.shape), 0, 1)


def test_psnr_and_nmse_inside_a_mask_by_hand() -> None:
    one, other = np.array([[0.5, 0.5], [1.0, 1.0]]), np.array([[0.5, 0.6], [1.0, 0.8]])
    mask = np.array([[False, True], [False, False]])
    assert psnr(one, other, data_range=1) == pytest.approx(10 * math.log10(1 / ((0.01 + 0.04) / 4)))
    assert psnr(one, other, data_range=1, mask=mask) == pytest.approx(20)
    assert psnr(one, other, data_range=1, mask=np.array([[True, False], [True, False]])) == math.inf
    assert nmse(one, other) == pytest.approx(0.05 / 2.5)
    assert nmse(one, other, mask=mask) == pytest.approx(0.01 / 0.25)
    assert math.isnan(nmse(np.zeros((2, 2)), other))


def test_the_papers_24_bits_add_a_constant() -> None:
    # one grey level of 8 bits everywhere is the least that differs everywhere: 48.13 dB, or 144.49 on that scale
    least = psnr(np.zeros(4), np.ones(4), data_range=255)
    assert least + PAPER_DB == pytest.approx(20 * math.log10(2**24 - 1))
    assert pytest.approx(96.36, abs=0.01) == PAPER_DB


def test_ssim_of_even_images_by_hand() -> None:
    one, other = np.full((16, 16), 0.4), np.full((16, 16), 0.6)
    expected = (2 * 0.4 * 0.6 + 0.01**2) / (0.4**2 + 0.6**2 + 0.01**2)
    np.testing.assert_allclose(ssim_map(one, other, data_range=1), expected)
    assert ssim(one, one, data_range=1) == pytest.approx(1)


def test_ssim_agrees_with_scikit_image() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    one, other = two()
    expected = skimage.structural_similarity(
        one, other, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert ssim(one, other, data_range=1) == pytest.approx(expected[0], abs=1e-9)
    inner = (slice(5, -5),) * 2
    np.testing.assert_allclose(ssim_map(one, other, data_range=1)[inner], expected[1][inner], atol=1e-9)


def test_ms_ssim_and_psnr_agree_with_torchmetrics() -> None:
    import_torchvision()
    pytest.importorskip("torchmetrics")
    import torch
    from torchmetrics.functional import image as reference

    one, other = two()
    pair = [torch.from_numpy(part)[None, None] for part in (one, other)]
    theirs = reference.multiscale_structural_similarity_index_measure(*pair, data_range=1.0)
    assert ms_ssim(one, other, data_range=1) == pytest.approx(float(theirs), abs=1e-3)  # they count the border
    _, whole = reference.structural_similarity_index_measure(*pair, data_range=1.0, return_full_image=True)
    inner = (slice(8, -8),) * 2
    np.testing.assert_allclose(ssim_map(one, other, data_range=1)[inner], whole[0, 0].numpy()[inner], atol=1e-9)
    assert psnr(one, other, data_range=1) == pytest.approx(
        float(reference.peak_signal_noise_ratio(*pair, data_range=1.0)), abs=1e-4
    )


def test_the_figures_stay_what_those_libraries_gave() -> None:
    """Where neither library is installed: their figures of the same pair, written down."""
    one, other = two()
    assert ssim(one, other, data_range=1) == pytest.approx(0.63927, abs=1e-4)
    assert ms_ssim(one, other, data_range=1) == pytest.approx(0.9362, abs=1e-3)


def test_inside_and_outside_part_a_change() -> None:
    one = film(3) / 255
    other, inside = one.copy(), np.zeros(one.shape, bool)
    inside[40:60, 30:50] = True
    other[inside] = np.clip(other[inside] + 0.2, 0, 1)
    found = pair_numbers(one.astype(np.float32), other.astype(np.float32), inside)
    assert found["PSNR", "outside"] == math.inf
    assert found["NMSE", "outside"] == 0
    assert found["SSIM", "inside"] < found["SSIM", "whole"] < found["SSIM", "outside"] < 1  # SSIM sees 5 px around
    assert found["PSNR", "inside"] == pytest.approx(20 * math.log10(1 / 0.2), abs=0.3)
    assert ("MS-SSIM", "whole") not in found  # 96 pixels are too few for five scales


def test_an_error_over_black_is_left_out_and_said_so() -> None:
    """A lung lesion in a window of soft tissue: its surroundings and the real image inside it are 0."""
    one, inside = film(3).astype(np.float32) / 255, np.zeros((96, 96), bool)
    inside[40:60, 30:50] = True
    one[inside] = 0
    other = np.where(inside, np.float32(0.5), one)
    values = pair_numbers(one, other, inside)
    assert ("NMSE", "inside") not in values and ("NMSE", "whole") in values
    pairs = [PairNumbers(name=name, group=name, values=values) for name in "ab"]
    rows = {row.name: row for row in pair_rows(pairs, {}, {}, unit="1", seed=0)}
    assert rows["NMSE, inside lesions"].value is None
    assert "black there" in rows["NMSE, inside lesions"].note
    assert rows["PSNR, inside lesions"].value == pytest.approx(20 * math.log10(2), abs=1e-4)


def test_what_cannot_be_measured_is_refused() -> None:
    small = np.zeros((10, 40))
    with pytest.raises(SettingsError, match="11 x 11"):
        ssim(small, small, data_range=1)
    with pytest.raises(SettingsError, match="161"):
        ms_ssim(np.zeros((160, 400)), np.zeros((160, 400)), data_range=1)
    with pytest.raises(SettingsError, match="empty"):
        psnr(small, small, data_range=1, mask=small > 0)


@pytest.mark.parametrize(("count", "verdict"), [(5, TOO_FEW), (6, DIFFERS)])
def test_a_paired_test_that_cannot_be_significant_is_not_made(count: int, verdict: str) -> None:
    def pairs(better: float) -> list[PairNumbers]:
        return [PairNumbers(name=f"i{k}", group=f"p{k}", values={("PSNR", "whole"): 30 + better * (1 + 0.1 * k)})
                for k in range(count)]  # fmt: skip

    (row,) = method_rows(pairs(0.0), pairs(2.0), names=("one", "other"))
    assert row.verdict == verdict
    assert ("1 tests need 6 patients" in row.note) == (verdict == TOO_FEW) == math.isnan(row.p)
