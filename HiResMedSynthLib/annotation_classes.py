"""Names of classes in a site's own labelled folder: which class of the networks each means, and what is a lesion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.placement.network_ct import CLASSES as CT_CLASSES
from HiResMedSynthLib.placement.regions_film import STRUCTURES as FILM_CLASSES

__all__ = [
    "CT_CLASSES",
    "FILM_CLASSES",
    "IGNORE",
    "IGNORED",
    "KNOWN",
    "LESIONS",
    "class_table",
    "is_anatomy",
    "is_lesion",
    "is_nodule",
    "plain_name",
]
IGNORE, IGNORED = 255, ("ignore", "unknown", "void")  # label of pixels that teach nothing, and how folders call them
LUNG_CT = CT_CLASSES[-1]

# network's class -> what sites call its parts; sides, lobes and numbers are left aside ("rib_left_5" is "rib")
RIBS = ("rib", "ribs", "clavicle", "clavicles", "clavicula", "ribs and clavicles", "scapula", "sternum", "humerus")
SPINE = ("spine", "vertebra", "vertebrae", "vertebral body", "vertebral column")
PELVIS = ("pelvis", "pelvis and hips", "hip", "hips", "sacrum", "femur", "iliac bone", "iliac crest")
LUNGS = ("lung", "lungs")
KNOWN: dict[str, tuple[str, ...]] = {
    "outside the body": ("outside", "air", "outside body"),
    "body": ("body", "patient", "thorax"),
    "chest wall or abdomen": (
        "chest wall", "soft tissue", "muscle", "abdomen", "liver", "spleen", "stomach", "breast", "kidney", "pancreas",
        "gallbladder", "colon", "bowel", "small bowel", "duodenum", "adrenal gland", "urinary bladder", "autochthon",
        "iliopsoas", "gluteus maximus", "gluteus medius", "gluteus minimus", "fat", "skin",
    ),
    "bone and spine": ("bone", "bones", "bone structure", "skeleton", *RIBS, *SPINE, *PELVIS),
    "ribs and clavicles": RIBS,
    "spine": SPINE,
    "pelvis and hips": PELVIS,
    "mediastinum and heart": (
        "mediastinum", "heart", "cardiomediastinum", "aorta", "great vessels", "pulmonary artery", "oesophagus",
        "esophagus", "hilum", "vena cava", "superior vena cava", "inferior vena cava", "heart atrium",
        "heart ventricle", "heart myocardium",
    ),
    "trachea and main bronchi": (
        "trachea", "bronchi", "bronchus", "main bronchi", "main bronchus", "airway", "airways",
    ),
    LUNG_CT: LUNGS,
    "lungs": LUNGS,
}  # fmt: skip
NODULES = (
    "nodule", "nodules", "lung nodule", "pulmonary nodule", "mass", "lesion", "lesions", "tumour", "tumor", "cancer",
    "metastasis", "metastases", "granuloma",
)  # fmt: skip
LESIONS = (*NODULES, "stone", "stones", "calculus", "calculi", "kidney stone", "opacity", "cyst")
SIDES = {"left", "right", "l", "r", "upper", "middle", "lower", "lobe", "nos"}


def plain_name(name: str) -> str:
    """A class's name without sides, lobes and numbers, in small letters: "rib_left_5" -> "rib"."""
    words = re.split(r"[\s_\-/.,()]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return " ".join(word for word in words if word and word not in SIDES and not re.fullmatch(r"[ctls]?\d+", word))


def class_table(found: Sequence[str], classes: Sequence[str], names: Mapping[str, str]) -> dict[str, int]:
    """Label of each of a folder's anatomical classes: place in `classes` from 1, 255 = ignore; lesions are left out.

    Raises:
        SettingsError: a name that is not known; the message lists those that are.
    """
    table: dict[str, int] = {}
    accepted = {plain: number for number, name in reversed([*enumerate(classes, start=1)])
                for plain in (name, plain_name(name), *KNOWN.get(name, ()))}  # fmt: skip
    accepted |= {name: number for number, name in enumerate(classes, start=1)}  # its own name comes first
    for name in found:
        meant = names.get(name, name)
        if meant.lower() in IGNORED:
            table[name] = IGNORE
        elif (number := accepted.get(meant.lower(), accepted.get(plain_name(meant)))) is not None:
            table[name] = number
        elif not is_lesion(meant):
            listed = "; ".join(f"{kind} ({', '.join(KNOWN[kind][:6])})" if kind in KNOWN else kind for kind in classes)
            raise SettingsError(
                f"the network has no class for '{name}'",
                remedy=f"Rename it in the folder's list, or call it 'ignore'. Known are: {listed}.",
            )
    return table


def is_lesion(name: str) -> bool:
    """Whether a class is a lesion by its name."""
    return plain_name(name) in LESIONS


def is_nodule(name: str) -> bool:
    """Whether a class is, by its name, a lesion as nodules and masses in the lung are."""
    return plain_name(name) in NODULES


def is_anatomy(name: str) -> bool:
    """Whether a class is a structure of the body by its name."""
    return plain_name(name) in {plain_name(part) for kind, parts in KNOWN.items() for part in (kind, *parts)}
