"""The machine reader of pictures: sees what is there, where it is, and nothing where there is nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.evaluation.picture_reader import picture_reader

SIDE = 24


def grain(seed: int, count: int) -> NDArray[np.float32]:
    """Pictures of noise as a scan has it."""
    noise = np.random.default_rng(seed).standard_normal((count, SIDE, SIDE))
    return np.stack([0.5 * gaussian_filter(one, 0.7) for one in noise]).astype(np.float32)


def names(count: int) -> list[str]:
    """Patients, two pictures each."""
    return [f"p{k // 2}" for k in range(count)]


def test_it_sees_a_patch_without_grain_and_says_where() -> None:
    real = grain(1, 60)
    made = real.copy()
    made[:, 2:10, 2:10] = gaussian_filter(made[:, 2:10, 2:10], (0, 1.5, 1.5))  # some corner, once turned
    found = picture_reader(real, made, names(60), names(60), 0, epochs=12)
    assert found.reading.auc > 0.8
    assert found.reading.interval()[0] > 0.65
    smooth = found.saliency[60:].mean(axis=0)
    assert smooth[2:10, 2:10].mean() > 1.2 * smooth[12:, 12:].mean()


def test_it_sees_nothing_where_there_is_nothing_and_repeats_itself() -> None:
    both = grain(2, 60)
    one, again = (picture_reader(both[:30], both[30:], names(30), names(30), 3, epochs=2) for _ in range(2))
    low, high = one.reading.interval()
    assert low < 0.5 < high
    np.testing.assert_array_equal(one.scores, again.scores)
    np.testing.assert_array_equal(one.saliency, again.saliency)


def test_scores_and_wins_tell_the_same() -> None:
    found = picture_reader(grain(4, 20), grain(5, 20), names(20), names(20), 0, epochs=1)
    real, made = found.scores[:20], found.scores[20:]
    compared = found.reading.pairs > 0
    assert 0 < compared.mean() < 0.4  # of five folds
    assert ((real[:, None] > made[None]) == (found.reading.wins == 1))[compared].all()


@pytest.mark.parametrize("shape", [(12, 25, 24), (12, 8, 8), (12, 2, 24, 24)])
def test_pictures_that_it_can_t_read_are_refused(shape: tuple[int, ...]) -> None:
    pictures = np.zeros(shape, np.float32)
    with pytest.raises(SettingsError, match="can't be read"):
        picture_reader(pictures, pictures, names(12), names(12), 0)


def test_too_few_patients_or_pictures_of_other_sizes_are_refused() -> None:
    pictures = grain(6, 12)
    with pytest.raises(SettingsError, match="too few"):
        picture_reader(pictures, pictures, ["one"] * 12, names(12), 0)
    with pytest.raises(SettingsError, match="fit together"):
        picture_reader(pictures, pictures[:, :16, :16], names(12), names(12), 0)
