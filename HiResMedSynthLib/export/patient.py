"""The synthetic patient and study of an export, and the marks that every object carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from HiResMedSynthLib import __version__
from HiResMedSynthLib.errors import SettingsError
from HiResMedSynthLib.export.identity import OutputIdentity

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "HiResMedSynth developers"
MODEL = "HiResMedSynth"
CASE_HASH = "case sha256 "  # stands before the hash of case.json in Contribution Description
LONGEST_LABEL = 40  # of 64 characters that LO and a name component may have, SYNTHETIC takes some
DEIDENTIFICATION_METHOD = (
    "Header built anew from an allow-list",
    "All UIDs are new",
    "All dates and times are those of the synthesis",
)


@dataclass(frozen=True, kw_only=True)
class StudyLabels:
    """What the user may add to an export's labels; empty: the default. The word SYNTHETIC always stays before them.

    Args:
        patient_name, patient_id, study_description, series_description: free text of the user, never of a source.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 (read by pydantic where JSON comes in)

    patient_name: str = ""
    patient_id: str = ""
    study_description: str = ""
    series_description: str = ""

    def __post_init__(self) -> None:
        for name in ("patient_name", "patient_id", "study_description", "series_description"):
            text = getattr(self, name)
            if len(text) > LONGEST_LABEL or not text.isprintable() or set(text) & set("\\^="):
                raise SettingsError(
                    f"the {name.replace('_', ' ')} can't stand in a DICOM header",
                    remedy=f"Use up to {LONGEST_LABEL} characters, none of \\ ^ =, on one line.",
                )


@dataclass(frozen=True, kw_only=True)
class SyntheticStudy:
    """What all objects of one export share.

    Args:
        patient_id, patient_name: never empty, never a person's.
        study_description: as a reading station lists it.
        case_sha256: hash that names the case, written into every object; empty: there is none.
        identity: where its UIDs and dates come from.
    """

    patient_id: str
    patient_name: str
    study_description: str
    case_sha256: str = ""
    identity: OutputIdentity = field(default_factory=OutputIdentity)

    @classmethod
    def of_case(
        cls, case_hash: str, labels: StudyLabels | None = None, identity: OutputIdentity | None = None
    ) -> SyntheticStudy:
        """A study of the synthetic patient that a case stands for: same case, same patient."""
        own = labels or StudyLabels()
        return cls(
            patient_id=f"SYN-{own.patient_id.strip() or case_hash[:12].upper()}",
            patient_name=f"SYNTHETIC^{own.patient_name.strip() or case_hash[:8].upper()}",
            study_description=f"SYNTHETIC, {own.study_description.strip() or 'research only'}",
            case_sha256=case_hash,
            identity=identity or OutputIdentity(),
        )


def add_marks(dataset: Dataset, study: SyntheticStudy) -> None:
    """Marks an object as synthetic: (0008,001C), Contributing Equipment, removed identity (PS3.3 C.12.1, C.7.1.1)."""
    from pydicom import Dataset, Sequence

    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "109100", "DCM"
    purpose.CodeMeaning = "Synthesizing Equipment"
    equipment = Dataset()
    equipment.Manufacturer = MANUFACTURER
    equipment.ManufacturerModelName = MODEL
    equipment.SoftwareVersions = __version__
    equipment.ContributionDateTime = study.identity.moment.strftime("%Y%m%d%H%M%S+0000")
    equipment.ContributionDescription = (
        f"Made a synthetic case; {CASE_HASH}{study.case_sha256 or 'none'}; research only, not for diagnosis"
    )
    equipment.PurposeOfReferenceCodeSequence = Sequence([purpose])
    dataset.TimezoneOffsetFromUTC = "+0000"  # the moment is told in UTC
    dataset.SyntheticData = "YES"
    dataset.ContributingEquipmentSequence = Sequence([equipment])
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = list(DEIDENTIFICATION_METHOD)
