"""The synthetic patient and study of an export, and the marks that every object carries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from HiResMedSynthLib import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "HiResMedSynth developers"
MODEL = "HiResMedSynth"
DEIDENTIFICATION_METHOD = "Header built from an allow-list; dates are of the synthesis"


@dataclass(frozen=True, kw_only=True)
class SyntheticStudy:
    """What all objects of one export share.

    Args:
        patient_id, patient_name: never empty, never a person's.
        study_description: as a reading station lists it.
        study_instance_uid, frame_of_reference_uid: new for each export.
        moment: of the synthesis; all dates of the export.
    """

    patient_id: str
    patient_name: str
    study_description: str
    study_instance_uid: str
    frame_of_reference_uid: str
    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def of_case(cls, case_hash: str) -> SyntheticStudy:
        """A new study of the synthetic patient that a case stands for: same case, same patient."""
        from pydicom.uid import generate_uid

        return cls(
            patient_id=f"SYN-{case_hash[:12].upper()}",
            patient_name=f"SYNTHETIC^{case_hash[:8].upper()}",
            study_description="SYNTHETIC, research only",
            study_instance_uid=str(generate_uid()),
            frame_of_reference_uid=str(generate_uid()),
        )

    @property
    def date(self) -> str:
        """DICOM DA."""
        return self.moment.strftime("%Y%m%d")

    @property
    def time(self) -> str:
        """DICOM TM."""
        return self.moment.strftime("%H%M%S")


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
    equipment.ContributionDateTime = study.moment.strftime("%Y%m%d%H%M%S+0000")
    equipment.ContributionDescription = "Composed synthetic lesions into an image; research only, not for diagnosis"
    equipment.PurposeOfReferenceCodeSequence = Sequence([purpose])
    dataset.SyntheticData = "YES"
    dataset.ContributingEquipmentSequence = Sequence([equipment])
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = DEIDENTIFICATION_METHOD
