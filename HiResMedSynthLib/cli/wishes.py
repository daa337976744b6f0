"""The lesions that a command line asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from HiResMedSynthLib.errors import SettingsError

if TYPE_CHECKING:
    from HiResMedSynthLib.case import LesionRequest


def requests_of(options: Mapping[str, Any]) -> tuple[LesionRequest, ...]:
    """The lesion requests that the options of `compose` ask for.

    Raises:
        SettingsError: they contradict each other.
        CaseError: the file of requests can't be read.
    """
    from HiResMedSynthLib.case import LesionRequest
    from HiResMedSynthLib.case_file import read_requests

    places = options["places"]
    if options["request_file"] is not None:
        return read_requests(options["request_file"])
    count = options["lesions"] or max(len(places) + sum(number for _, number in options["zones"]), 1)
    if len(places) > count:
        raise SettingsError(
            f"{len(places)} places are given for {count} lesions", remedy="Raise --lesions, or leave it out."
        )
    zones = [zone for zone, number in options["zones"] for _ in range(number)]
    if len(places) + len(zones) > count:
        asked = f"--zone asks for {len(zones)}" + (f" and --at for {len(places)}" if places else "")
        raise SettingsError(f"{asked} lesions, --lesions for {count}", remedy="Raise --lesions, or leave it out.")
    if options["contrast"] is not None and options["contrast_hu"] is not None:
        raise SettingsError("--contrast and --contrast-hu are both given", remedy="Give one of them.")
    one = LesionRequest(
        type=options["lesion_type"],
        size_mm=options["size_mm"],
        sizes=options["sizes"],
        bank_entry=options["bank_entry"],
        contrast=options["contrast"] or options["contrast_hu"],
        cnr=options["cnr"],
        rotation_degrees=options["rotation"],
        generator=options["generator"],
        model=options["model"],
    )
    requests = []
    for index in range(count):
        place = None
        if index < len(places):
            row, column, *more = places[index]
            place = (more[0] if more else 0.0, row, column)
        drawn_in = index - len(places)
        zone = zones[drawn_in] if 0 <= drawn_in < len(zones) else None
        requests.append(replace(one, seed=index, place=place, zone=zone))
    return tuple(requests)
