"""The plan of a data set: what each case is, from the spec, its seed and the case's number alone.

Any case can be made without the others, on any machine, in any order; a data set of more cases begins with the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
from numpy.typing import NDArray

from HiResMedSynthLib.batch.backgrounds import Background
from HiResMedSynthLib.batch.spec import Side, Spec
from HiResMedSynthLib.batch.split import Split, donor_of, drawn_split
from HiResMedSynthLib.batch.wishes import drawn_name, drawn_range
from HiResMedSynthLib.case import LesionRequest
from HiResMedSynthLib.choices import RequestType, Zone
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.lesion.bank import Bank

SPLIT, PATIENTS, ORDER, WISHES, SEEDS, NEGATIVES, SAMPLE = range(7)  # streams of the data set's seed
GOLDEN = 0.6180339887498949  # its multiples modulo 1 fill 0..1 evenly, however many are taken
BLOCK = 10  # in each block of so many cases the share of negatives holds
BACKGROUNDS_TRIED = 5  # slices of one patient, where a case finds no room in the first


@dataclass(frozen=True, kw_only=True)
class CasePlan:
    """One case, nothing of it drawn yet.

    Args:
        number: 1, 2 ...
        side: train, val or test.
        backgrounds: indices of the background to take, and of others of the same patient for when it has no room.
        seed: of the case: 63 bits, of a stream of its own.
        requests: the lesions wanted.
        negative: the lesions are drawn, so that negative cases have the same backgrounds as others, and left out.
    """

    number: int
    side: Side
    backgrounds: tuple[int, ...]
    seed: int
    requests: tuple[LesionRequest, ...]
    negative: bool

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"case_{self.number:07d}"


class Plan:
    """All cases of a data set, each worked out when it is asked for.

    Args:
        spec: what is wanted.
        backgrounds: what there is (`find_backgrounds`).
        bank: the lesions to choose from.

    Raises:
        SettingsError: a split that can't be.
    """

    def __init__(self, spec: Spec, backgrounds: tuple[Background, ...], bank: Bank) -> None:
        self.spec, self.backgrounds, self.bank = spec, backgrounds, bank
        self.by_patient: dict[str, list[int]] = {}
        for index, background in enumerate(backgrounds):
            self.by_patient.setdefault(background.patient, []).append(index)
        self.split: Split = drawn_split(list(self.by_patient), bank, spec.output.split, seed=self._seed(SPLIT))
        self._check_donors()
        self._patients: dict[Side, list[str]] = {side: [] for side in self.split.shares}
        everybody = list(self.by_patient)
        for index in self._stream(PATIENTS).permutation(len(everybody)):
            self._patients[self.split.patients[everybody[index]]].append(everybody[index])
        self._orders: dict[str, NDArray[np.int64]] = {}

    @property
    def count(self) -> int:
        """How many cases there are."""
        return self.spec.cases.count

    @cached_property
    def sha256(self) -> str:
        """Names the data set whatever its number of cases: spec, backgrounds (by name, not by pixels), bank."""
        told = "\n".join(
            f"{one.patient} {one.name} {one.series} {one.slice_index} {one.spacing_mm}" for one in self.backgrounds
        )
        return hashlib.sha256(f"{self.spec.sha256} {self.bank.sha256}\n{told}".encode()).hexdigest()

    @cached_property
    def patient_groups(self) -> dict[str, int]:
        """Whose a background is -> 1, 2 ... in an order that says nothing."""
        listed = [patient for side in self.split.shares for patient in self._patients[side]]
        return {patient: number for number, patient in enumerate(listed, start=1)}

    @cached_property
    def background_groups(self) -> dict[int, int]:
        """Index of a background -> 1, 2 ... in an order that says nothing."""
        ordered = [int(index) for patient in self.patient_groups for index in self._order(patient)]
        return {index: number for number, index in enumerate(ordered, start=1)}

    @cached_property
    def donor_groups(self) -> dict[str, int]:
        """Whose a lesion was -> 1, 2 ... in the order of the hashes."""
        return {donor: number for number, donor in enumerate(sorted(self.split.donors), start=1)}

    def bank_of(self, side: Side) -> Bank:
        """The lesions that cases of a side may be made from."""
        if len(self.split.shares) == 1:
            return self.bank
        if side not in self._banks:
            names = [n for n, card in self.bank.cards.items() if self.split.donors[donor_of(card)] == side]
            self._banks[side] = self.bank.only(names)
        return self._banks[side]

    def sample(self, size: int) -> frozenset[int]:
        """Numbers of so many cases, drawn for pictures of the data set."""
        if size not in self._samples:
            drawn = self._stream(SAMPLE).permutation(self.count)[:size]
            self._samples[size] = frozenset(int(place) + 1 for place in drawn)
        return self._samples[size]

    def case(self, number: int) -> CasePlan:
        """The case of that number, from 1."""
        return CasePlan(
            number=number,
            side=self._place(number)[0],
            backgrounds=self.backgrounds_of(number),
            seed=int(self._seed(SEEDS, number).generate_state(1, np.uint64)[0] >> np.uint64(1)),
            requests=self._requests(number),
            negative=self._is_negative(number),
        )

    def backgrounds_of(self, number: int) -> tuple[int, ...]:
        """Indices of the case's background, and of others of the same patient that it may take instead."""
        side, place = self._place(number)
        patients = self._patients[side]
        order = self._order(patients[place % len(patients)])
        first = place // len(patients)
        return tuple(int(order[(first + k) % len(order)]) for k in range(min(len(order), BACKGROUNDS_TRIED)))

    def _requests(self, number: int) -> tuple[LesionRequest, ...]:
        cases, rng = self.spec.cases, self._stream(WISHES, number)
        return tuple(
            LesionRequest(
                seed=seed,
                type=cast("RequestType", drawn_name(cases.types, rng)),  # the spec has checked it
                size_mm=drawn_range(cases.size_mm, rng),
                sizes=cases.sizes,
                contrast=None if cases.contrast is None else drawn_range(cases.contrast, rng),
                cnr=None if cases.cnr is None else drawn_range(cases.cnr, rng),
                zone=None if cases.zones is None else cast("Zone", drawn_name(cases.zones, rng)),
                generator=cases.generator,
                model=cases.model,
            )
            for seed in range(int(drawn_name(cases.lesions, rng)))
        )

    def _is_negative(self, number: int) -> bool:
        """Whether the case has no lesion: of each block of ten so many as the share asks for, at drawn places."""
        block, place = divmod(number - 1, BLOCK)
        share = self.spec.cases.negatives
        wanted = round((block + 1) * BLOCK * share) - round(block * BLOCK * share)
        return place in self._stream(NEGATIVES, block).permutation(BLOCK)[:wanted]

    def _place(self, number: int) -> tuple[Side, int]:
        """(side, which case of that side it is, from 0)."""
        sides, places = self._places
        return list(self.split.shares)[sides[number - 1]], int(places[number - 1])

    @cached_property
    def _places(self) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
        ends = np.cumsum(list(self.split.shares.values()))[:-1]
        sides = np.searchsorted(ends, (np.arange(self.count) + 0.5) * GOLDEN % 1.0, side="right").astype(np.int8)
        places = np.zeros(self.count, dtype=np.int64)
        for side in range(len(self.split.shares)):
            of_side = np.flatnonzero(sides == side)
            places[of_side] = np.arange(len(of_side))
        return sides, places

    def _order(self, patient: str) -> NDArray[np.int64]:
        """The patient's backgrounds in the order in which cases take them."""
        if patient not in self._orders:
            ours = self.by_patient[patient]
            self._orders[patient] = self._stream(ORDER, ours[0]).permutation(np.array(ours))
        return self._orders[patient]

    @cached_property
    def _samples(self) -> dict[int, frozenset[int]]:
        return {}

    @cached_property
    def _banks(self) -> dict[Side, Bank]:
        return {}

    def _check_donors(self) -> None:
        """Refuses what can't be kept apart, or lacks on a side."""
        cases = self.spec.cases
        if len(self.split.shares) == 1:
            return
        if cases.generator != "deform":
            raise SettingsError(
                f"cases.generator: lesions of '{cases.generator}' come from donors that can't be kept on one side",
                remedy="Write split = { train = 1 } under [output], or take the generator deform.",
            )
        for side in self.split.shares:
            there = {card.type for card in self.bank_of(side).cards.values()}
            for name in cases.types:
                if name != "stone" and not there & set(self.bank.types_for(name)):
                    raise SettingsError(
                        f"cases.types: no donor of a lesion of type '{name}' is left for the side '{side}'",
                        remedy="Leave the type or the side out.",
                    )

    def _seed(self, *purpose: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.spec.cases.seed, spawn_key=purpose)

    def _stream(self, *purpose: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self._seed(*purpose)))
