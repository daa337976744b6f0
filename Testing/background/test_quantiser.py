"""Codebook and FSQ against numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from HiResMedSynthLib.background.quantiser import FSQ, Codebook, count_codes, perplexity, usage
from HiResMedSynthLib.errors import SettingsError


def two_codes(*, squared: bool = True) -> Codebook:
    book = Codebook(2, 2, squared=squared)
    book.vectors.data = torch.tensor([[10.0, 1.0], [0.0, 1.0]])
    return book


def one_vector() -> torch.Tensor:
    return torch.tensor([0.6, 0.5]).reshape(1, 2, 1, 1).requires_grad_()


def number(term: torch.Tensor) -> float:
    return float(term.detach())


def test_the_largest_cosine_is_chosen_and_the_raw_vector_returned() -> None:
    result = two_codes()(one_vector())
    assert result.indices.tolist() == [[[0]]]  # cosines .83 and .64; by distance it would be the second
    assert result.values.flatten().tolist() == [10.0, 1.0]


def test_terms_of_eq_1_by_hand() -> None:
    squared = ((10 - 0.6) ** 2 + (1 - 0.5) ** 2) / 2
    result = two_codes()(one_vector())
    assert number(result.commitment) == pytest.approx(squared)
    assert number(result.codebook) == pytest.approx(squared)
    assert number(two_codes(squared=False)(one_vector()).commitment) == pytest.approx(math.sqrt(squared))


def test_each_term_moves_what_the_equation_says() -> None:
    book, encoded = two_codes(), one_vector()
    book(encoded).commitment.backward()  # ||sg(M^t) - M||: the encoder
    assert book.vectors.grad is None
    assert encoded.grad is not None
    assert encoded.grad.flatten().tolist() == pytest.approx([0.6 - 10, 0.5 - 1])
    book, encoded = two_codes(), one_vector()
    book(encoded).codebook.backward()  # ||sg(M) - M^t||: the codes
    assert encoded.grad is None
    assert book.vectors.grad is not None
    assert book.vectors.grad.tolist() == [pytest.approx([10 - 0.6, 1 - 0.5]), [0.0, 0.0]]


def test_gradient_goes_straight_through() -> None:
    book, encoded = two_codes(), one_vector()
    (book(encoded).values * torch.tensor([2.0, -3.0]).reshape(1, 2, 1, 1)).sum().backward()
    assert encoded.grad is not None
    assert encoded.grad.flatten().tolist() == [2.0, -3.0]
    assert book.vectors.grad is None


@pytest.mark.parametrize("quantiser", [Codebook(32, 4), FSQ()])
def test_what_leaves_is_exactly_the_code(quantiser: Codebook | FSQ) -> None:
    encoded = 3.3 * torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    result = quantiser(encoded)
    assert torch.equal(result.values.detach(), quantiser.look_up(result.indices).detach())  # to the bit


def test_positions_without_weight_cost_nothing() -> None:
    book = two_codes()
    encoded = torch.tensor([[0.6, 50.0], [0.5, 70.0]]).reshape(1, 2, 1, 2)
    weight = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert number(book(encoded, weight).commitment) == pytest.approx(number(two_codes()(one_vector()).commitment))


def test_use_and_perplexity_by_hand() -> None:
    counts = count_codes(torch.tensor([[[0, 2], [2, 0]]]), 4)
    assert counts.tolist() == [2, 0, 2, 0]
    assert usage(counts) == 0.5
    assert perplexity(counts) == pytest.approx(2)
    assert perplexity(torch.tensor([7, 0])) == pytest.approx(1)


def test_only_dead_codes_are_revived() -> None:
    book = Codebook(3, 2)
    kept = book.vectors.detach()[1].clone()
    encoded = torch.tensor([[4.0], [5.0]]).reshape(1, 2, 1, 1)
    assert book.revive(encoded, torch.tensor([0, 3, 0]), torch.Generator()) == 2
    assert book.vectors.tolist() == [[4.0, 5.0], kept.tolist(), [4.0, 5.0]]


def test_fsq_numbers_its_codes_without_gap() -> None:
    quantiser = FSQ((8, 5, 5, 5))
    indices = torch.arange(1000).reshape(1, 20, 50)
    assert quantiser.entries == 1000
    values = quantiser.look_up(indices)
    assert (float(values.min()), float(values.max())) == (-1.0, 1.0)
    assert len(torch.unique(values.reshape(4, -1), dim=1).T) == 1000
    assert torch.equal(quantiser(torch.atanh(0.999 * values)).indices, indices)
    assert torch.equal(quantiser.to_index(quantiser.to_digits(indices)), indices)


def test_fsq_by_hand() -> None:
    result = FSQ((8, 5))(torch.tensor([0.1, -20.0]).reshape(1, 2, 1, 1))
    assert result.indices.item() == 4 + 8 * 0  # tanh(.1) lies in the fifth of eight parts, -1 in the first of five
    assert result.values.flatten().tolist() == pytest.approx([4 / 7 * 2 - 1, -1])
    assert float(result.commitment + result.codebook) == 0


def test_impossible_levels_are_refused() -> None:
    with pytest.raises(SettingsError, match="levels"):
        FSQ((8, 1))
