"""A folder a case, as `compose` writes it; of a negative case the series alone, marked as synthetic."""

from __future__ import annotations

from pathlib import Path

from HiResMedSynthLib.batch.layout import Entries, Entry, MadeCase, facts_of
from HiResMedSynthLib.batch.spec import Output
from HiResMedSynthLib.case_file import case_sha256
from HiResMedSynthLib.export.dicom_series import series_datasets, write_series
from HiResMedSynthLib.export.folder import BODY_PARTS, export
from HiResMedSynthLib.export.patient import SyntheticStudy
from HiResMedSynthLib.export.sop_class import object_kind
from HiResMedSynthLib.export.stored import stored_form

IN_A_FOLDER = 1000  # cases: file systems and file managers are slow with more


class DicomFolders:
    """cases/000/case_0000001/ with dicom/, segmentation.dcm, case.json ..."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def write(self, made: MadeCase, root: Path) -> list[Entry]:
        """One entry an image; those of a case share its folder."""
        place = f"cases/{made.number // IN_A_FOLDER:03d}/{made.name}"
        folder = root / place
        folder.parent.mkdir(parents=True, exist_ok=True)
        if made.negative:
            self._write_negative(made, folder)
        else:
            export(
                made.composition,
                folder,
                changed_only=self.output.changed_only,
                pair=made.paired,
                identity=made.identity,
                seg=self.output.seg,
                compress=self.output.compress,
                with_preview=self.output.preview,
                with_report=self.output.sr,
            )
        return [{**facts_of(one), "folder": place} for one in made.images()]

    def paths(self, entry: Entry) -> list[str]:
        """The case's folder."""
        return [entry["folder"]]

    def finish(self, entries: Entries, out: Path, output: Output) -> None:
        """There is no list but manifest.csv."""

    def _write_negative(self, made: MadeCase, folder: Path) -> None:
        composition = made.composition
        image = composition.background
        kind = object_kind(image, composition.case.settings.modality)
        slices = composition.changed_slices if self.output.changed_only else tuple(range(image.slices))
        folder.mkdir()
        datasets = series_datasets(
            image,
            kind,
            SyntheticStudy.of_case(case_sha256(composition.case), identity=made.identity),
            description="SYNTHETIC case without lesions",
            derivation="Negative case of a synthetic data set: pixels unchanged, header rebuilt. Research only",
            series_number=1,
            slices=slices,
            body_part=BODY_PARTS.get(composition.case.background.domain),
            form=stored_form(image, composition.image),
        )
        write_series(
            datasets, folder / "dicom", total=len(slices), compress=self.output.compress,
            progress=lambda _done, _total, _what: None,
        )  # fmt: skip
