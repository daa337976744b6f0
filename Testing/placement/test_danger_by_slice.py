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
    monkeypatch.setattr(PlacementMethod, "danger_network", lambda *_asked, **_how: watched.network)
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
    assert watched.seen == 8  # where the rule saw most lung
    everywhere = slice(None)
    for _ in range(2):
        found.part((slice(42, 43), everywhere, everywhere))
        assert watched.seen == 8 + 24  # chunks 40-48 and those that the margin of 9 mm reaches
    assert "looked at 8 slices" in repr(found)
    found.look_everywhere(lambda done, total: told.append((done, total)))
    assert watched.seen == SLICES
    assert told[0] == (40, SLICES)
    assert told[-1] == (SLICES, SLICES)


def test_slices_that_are_asked_for_backwards_are_looked_at_too() -> None:
    whole = danger(dense_ends(), domain="lung-ct", margins=MARGINS)
    found = danger(dense_ends(), domain="lung-ct", margins=MARGINS, by_slice=True)
    for rows in (slice(20, 10, -1), slice(None, None, -7), slice(50, 50), slice(-3, None)):
        here = (rows, slice(None), slice(None))
        assert np.array_equal(found.part(here), whole.labels[here])


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


@pytest.mark.parametrize(
    ("own", "rule_finds", "told"),
    [
        (False, True, r"no lung was found in this image\..*--domain"),
        (True, True, r"the model 'blind' found no lung in this image, the rule did.*--danger rule"),
        (True, False, r"no lung was found in this image, by the model 'blind' or by the rule.*--domain"),
    ],
)
def test_a_picture_in_which_the_network_sees_no_lung_is_refused_and_the_model_named_where_it_may_err(
    own: bool, rule_finds: bool, told: str
) -> None:
    def blind(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.full((len(pictures), len(PLAN.classes), *pictures.shape[2:]), -4.0, dtype=np.float32)
        logits[:, 1] = 4.0  # wall
        return logits

    network = PlacementNetwork(PLAN, blind, name="blind", engine="torch", own=own)
    image = chest_ct(20)
    image = image if rule_finds else image.with_pixels(np.full_like(image.pixels, 40))
    for by_slice in (True, False):
        with pytest.raises(PlacementError, match=told):
            danger(image, domain="lung-ct", margins=MARGINS, network=network, by_slice=by_slice)


def settings(*places: tuple[float, float, float] | None, size_mm: tuple[float, float] = (8, 10)) -> CaseSettings:
    requests = (LesionRequest(place=place, size_mm=size_mm, seed=seed) for seed, place in enumerate(places))
    return CaseSettings(requests=tuple(requests), margins=Margins(), placement=PlacementMethod(prior="density"))


def whole_ground(image: MedicalImage, wanted: CaseSettings) -> Ground:
    return prepare_ground(image, margins=wanted.margins, placement=wanted.placement)


def test_a_case_at_given_places_costs_the_slices_around_them_and_is_the_same(watched: Watched) -> None:
    image = chest_ct(SLICES, slice_mm=2.0, noise_hu=20)
    wanted = settings((40.0, 78.0, 36.0))
    case = draw_case(image, wanted, 5)
    assert 0 < watched.seen <= 40
    again = draw_case(image, wanted, 5, ground=whole_ground(image, wanted))
    assert case_bytes(case) == case_bytes(again)


def test_a_drawn_place_needs_all_slices_and_tells_of_them(watched: Watched) -> None:
    told: list[str] = []
    image = chest_ct(SLICES, slice_mm=2.0, noise_hu=20)
    draw_case(image, settings((40.0, 78.0, 36.0), None), 5, progress=lambda _done, _total, what: told.append(what))
    assert watched.seen == SLICES
    assert "looking where lesions may go, slice 16 of 60" in told


def test_a_place_in_a_zone_needs_all_slices_and_is_the_same(watched: Watched) -> None:
    image = chest_ct(SLICES, slice_mm=5.0, noise_hu=20)
    wanted = settings((40.0, 78.0, 36.0))
    wanted = replace(wanted, requests=(replace(wanted.requests[0], zone="right"),))
    case = draw_case(image, wanted, 5)
    assert watched.seen == SLICES
    again = draw_case(image, wanted, 5, ground=whole_ground(image, wanted))
    assert case_bytes(case) == case_bytes(again)


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
