"""What kind of picture a background is: decides the rules of placement and how a lesion is seen in it."""

from __future__ import annotations

from HiResMedSynthLib.choices import Domain
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.image import MedicalImage

PROJECTION_DOMAINS: tuple[Domain, ...] = ("cxr", "kub")


def guess_domain(image: MedicalImage) -> Domain:
    """The domain of an image by its modality: CT (or anything in HU) is lung-ct, a radiograph is cxr, MR is mr.

    Raises:
        SettingsError: the modality doesn't tell (OT ...): the user must say.
    """
    if image.units == "HU":
        return "lung-ct"
    if image.modality in ("CR", "DX", "RG", "XA", "RF"):
        return "kub" if (image.facts.body_part_examined or "").upper() in ("ABDOMEN", "KUB", "PELVIS") else "cxr"
    if image.modality == "MR":
        return "mr"
    raise SettingsError(
        f"an image of modality {image.modality} doesn't tell what it shows",
        remedy="Say it with --domain lung-ct, --domain cxr, --domain kub or --domain mr.",
    )
