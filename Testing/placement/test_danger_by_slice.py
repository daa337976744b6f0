"""A chest CT's danger map by the slice: the same as the whole map, at the cost of the slices that are needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from HiResMedSynthLib.case import CaseSettings, LesionRequest
from HiResMedSynthLib.case_file import case_bytes
from HiResMedSynthLib.draw_case import draw_case
from HiResMedSynthLib.errors import ForbiddenPlaceError, PlacementError
from HiResMedSynthLib.ground import Ground, prepare_ground
from HiResMedSynthLib.image import MedicalImage
from HiResMedSynthLib.placement.danger import danger
from HiResMedSynthLib.placement.margins import Margins
from HiResMedSynthLib.placement.method import PlacementMethod
from HiResMedSynthLib.placement.network import PlacementNetwork
from Testing.placement.phantoms import chest_ct
from Testing.placement.test_danger_network_ct import PLAN, knows_the_phantom

MARGINS = Margins(pleura_mm=9.0, vessel_mm=3.0)
SLICES = 60


class Watched:
    """A network that counts the slices it sees."""

    def __init__(self) -> None:
        self.seen = 0
        self.network = PlacementNetwork(PLAN, self.run, name="watched", engine="torch")

    def run(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen += len(pictures)
        return knows_the_phantom(pictures)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The network that `prepare_ground` takes."""
    watched = Watched()
    monkeypatch.setattr(PlacementMethod, "danger_network", lambda _method, _domain: watched.network)
    return watched


def dense_ends(slice_mm: float = 2.0) -> MedicalImage:
    """The phantom whose lungs change from slice to slice: both end in it, so that margins reach across slices."""
    image = chest_ct(SLICES, slice_mm=slice_mm, noise_hu=20)
    pixels = image.pixels.copy()
    pixels[:7][pixels[:7] < -500] = 40
    pixels[29:31, :, :64][pixels[29:31, :, :64] < -500] = 30  # a plate across one lung
    return image.with_pixels(pixels)


@pytest.mark.parametrize("by_rule", [True, False])
@pytest.mark.parametrize("order", [(40, 41, 10, 30, 59), (0, 59)])
def test_each_slice_is_what_it_is_in_the_whole_map(order: tuple[int, ...], *, by_rule: bool) -> None:
    image, network = dense_ends(), None if by_rule else Watched().network
    wish = {"domain": "lung-ct", "margins": MARGINS, "network": network}
    whole = danger(image, **wish)  # type: ignore[arg-type]
    found = danger(image, **wish, by_slice=True)  # type: ignore[arg-type]
    for index in order:
        here = (slice(index, index + 1), slice(20, 100), slice(None))
        assert np.array_equal(found.part(here), whole.labels[here])
        assert np.array_equal(found.forbidden(within=here), whole.forbidden()[here])
        assert found.classes_in(here) == whole.classes_in(here)
    assert np.array_equal(found.labels, whole.labels)
    assert (found.shape, found.names, found.method) == (whole.shape, whole.names, whole.method)
    assert not found.labels.flags.writeable


def test_only_slices_that_are_asked_for_are_looked_at_each_once() -> None:
    watched, told = Watched(), list[tuple[int, int]]()
    found = danger(dense_ends(), domain="lung-ct", margins=MARGINS, network=watched.network, by_slice=True)
    assert watched.seen == 0
    everywhere = slice(None)
    found.part((slice(42, 43), everywhere, everywhere))
    assert watched.seen == 24  # chunks 40-48 and those that the margin of 9 mm reaches
    found.part((slice(42, 43), everywhere, everywhere))
    assert watched.seen == 24
    found.look_everywhere(lambda done, total: told.append((done, total)))
    assert watched.seen == SLICES
    assert told[0] == (8, SLICES - 24)
    assert told[-1] == (SLICES - 24, SLICES - 24)


def test_a_look_that_was_broken_off_goes_on_where_it_stopped() -> None:
    watched = Watched()
    found = danger(dense_ends(), domain="lung-ct", margins=MARGINS, network=watched.network, by_slice=True)

    def cancel(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.look_everywhere(cancel)
    whole = danger(dense_ends(), domain="lung-ct", margins=MARGINS, network=Watched().network)
    assert np.array_equal(found.labels, whole.labels)
    assert watched.seen == SLICES


def test_a_picture_in_which_the_network_sees_no_lung_is_refused_though_the_rule_finds_one() -> None:
    def blind(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.full((len(pictures), len(PLAN.classes), *pictures.shape[2:]), -4.0, dtype=np.float32)
        logits[:, 1] = 4.0  # wall
        return logits

    network = PlacementNetwork(PLAN, blind, name="blind", engine="torch")
    found = danger(chest_ct(20), domain="lung-ct", margins=MARGINS, network=network, by_slice=True)
    with pytest.raises(PlacementError, match="no lung was found"):
        found.part((slice(3, 4), slice(None), slice(None)))


def settings(*places: tuple[float, float, float] | None, size_mm: tuple[float, float] = (8, 10)) -> CaseSettings:
    requests = (LesionRequest(place=place, size_mm=size_mm, seed=seed) for seed, place in enumerate(places))
    return CaseSettings(requests=tuple(requests), margins=Margins(), placement=PlacementMethod(prior="density"))


def whole_ground(image: MedicalImage, wanted: CaseSettings) -> Ground:
    return prepare_ground(image, margins=wanted.margins, placement=wanted.placement)


def test_a_case_at_given_places_costs_the_slices_around_them_and_is_the_same(watched: Watched) -> None:
    image = chest_ct(SLICES, slice_mm=2.0, noise_hu=20)
    wanted = settings((40.0, 78.0, 36.0))
    case = draw_case(image, wanted, 5)
    assert 0 < watched.seen <= 32
    again = draw_case(image, wanted, 5, ground=whole_ground(image, wanted))
    assert case_bytes(case) == case_bytes(again)


def test_a_drawn_place_needs_all_slices_and_tells_of_them(watched: Watched) -> None:
    told: list[str] = []
    image = chest_ct(SLICES, slice_mm=2.0, noise_hu=20)
    draw_case(image, settings((40.0, 78.0, 36.0), None), 5, progress=lambda _done, _total, what: told.append(what))
    assert watched.seen == SLICES
    assert "looking where lesions may go, slice 8 of 60" in told


def test_a_place_that_is_forbidden_is_refused_with_the_same_advice(watched: Watched) -> None:
    image = dense_ends()
    wanted = settings((3.0, 64.0, 90.0))  # below the lungs: the nearest place lies slices away
    with pytest.raises(ForbiddenPlaceError) as one:
        draw_case(image, wanted, 5)
    with pytest.raises(ForbiddenPlaceError) as other:
        draw_case(image, wanted, 5, ground=whole_ground(image, wanted))
    assert str(one.value) == str(other.value)
    assert one.value.nearest == other.value.nearest
    assert one.value.nearest is not None


def test_a_giant_is_refused_as_before(watched: Watched) -> None:
    image, wanted = dense_ends(), settings((40.0, 78.0, 36.0), size_mm=(90, 95))
    with pytest.raises(PlacementError, match="too big here") as one:
        draw_case(image, wanted, 5)
    with pytest.raises(PlacementError) as other:
        draw_case(image, wanted, 5, ground=whole_ground(image, wanted))
    assert str(one.value) == str(other.value)
    outside = replace(wanted, requests=settings((500.0, 78.0, 36.0)).requests)
    with pytest.raises(PlacementError, match="slice 500 is outside"):
        draw_case(image, outside, 5)
