"""Metrics of pairs: by hand, inside and outside of masks, and against scikit-image and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation import pairs as pairing
from HiResMedSynthLib.evaluation.comparable import Grid
from HiResMedSynthLib.evaluation.findings import DIFFERS, TOO_FEW
from HiResMedSynthLib.evaluation.image_sets import Loaded, Source
from HiResMedSynthLib.evaluation.metrics import MS_WEIGHTS, PAPER_DB, ms_ssim, ms_ssim_maps, nmse, psnr, ssim, ssim_map
from HiResMedSynthLib.evaluation.pair_rows import method_rows, pair_rows
from HiResMedSynthLib.evaluation.pairs import LEARNED, PairNumbers, PairPlan, measure_pairs, pair_numbers
from HiResMedSynthLib.torchvision_guard import import_torchvision
from Testing.evaluation.films import film
from Testing.export.cases import ct_image


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


def test_ms_ssim_counts_a_coarse_pixel_by_the_share_of_the_mask_in_it() -> None:
    one, other = two()
    maps = ms_ssim_maps(one, other, data_range=1)
    mask = np.zeros(one.shape, bool)
    mask[32:48, 40:64] = True  # one row of three halves and wholes at the coarsest scale, of 16 px
    mask[48, 40:64] = True
    means = [m[32 >> k : 48 >> k, 40 >> k : 64 >> k] for k, m in enumerate(maps[:4])]
    below = [m[48 >> k, 40 >> k : 64 >> k] / 2**k for k, m in enumerate(maps[:4])]  # its share of a coarse pixel
    expected = [
        (a.sum() + b.sum()) / (a.size + b.size / 2**k) for k, (a, b) in enumerate(zip(means, below, strict=True))
    ]
    shares = np.array([[128, 256], [8, 16]])  # of the coarsest pixels at rows 2, 3 and columns 2, 3
    expected.append(float((maps[4][2:4, 2:4] * shares).sum() / shares.sum()))
    worked = math.prod(mean**weight for mean, weight in zip(expected, MS_WEIGHTS, strict=True))
    assert ms_ssim(one, other, data_range=1, mask=mask) == pytest.approx(worked, rel=1e-9)


def test_ms_ssim_parts_a_change_and_leaves_out_what_the_coarse_scales_do() -> None:
    one = np.kron(film(3), np.ones((2, 2)))[:190, :190] / 255
    other, inside = one.copy(), np.zeros(one.shape, bool)
    inside[80:120, 60:100] = True
    other[inside] = np.random.default_rng(1).random(1600)
    found = pair_numbers(one.astype(np.float32), other.astype(np.float32), inside)
    assert found["MS-SSIM", "inside"] < found["MS-SSIM", "whole"] < found["MS-SSIM", "outside"] < 1
    edge = np.zeros(one.shape, bool)
    edge[182:, :] = True  # 190 = 11 x 16 + 14
    assert ("MS-SSIM", "inside") not in pair_numbers(one.astype(np.float32), other.astype(np.float32), edge)


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


@pytest.mark.parametrize(
    ("volumes", "budget", "read"), [(1, 16, "0 1 2 3 4 5 6"), (2, 6, "1 3 5, 1 3 5"), (4, 2, "3, , 3, ")]
)
def test_st_lpips_reads_evenly_spaced_slices_of_evenly_spaced_volumes(
    volumes: int, budget: int, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairing, "LEARNED", {name: lambda: lambda _one, _other: 0.25 for name in LEARNED})
    image = ct_image()
    made = Loaded(image=image, background=image)
    plans = [
        PairPlan(synthetic=Source(name=f"v{k}", group=f"p{k}", read=lambda: made, paired=True), partner=None)
        for k in range(volumes)
    ]
    grid = Grid(size=image.shape[1:], resampled=False, window=None, unit="", kind="CT")
    found, _ = measure_pairs(plans, grid, most=7, learned_pairs=budget, progress=lambda *_: None)
    held = [one.name.split("#") for one in found if ("ST-LPIPS", "whole") in one.values]
    assert ", ".join(" ".join(k for name, k in held if name == f"v{v}") for v in range(volumes)) == read
    row = next(row for row in pair_rows(found, {}, {}, unit="1", seed=0) if row.name == "ST-LPIPS")
    assert row.n.startswith(f"{len(held)} of {7 * volumes} pairs of" if len(held) < 7 * volumes else "7 pairs of")


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
