"""Section Export: a marked synthetic DICOM series with segmentation and boxes; into Slicer's database if wanted."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from HiResMedSynthPanel import form
from HiResMedSynthPanel.exporter import export_parameters, free_folder
from HiResMedSynthPanel.words import sentences


class ExportSection:
    """Where and how a case is written, and what its labels say."""

    def __init__(self, studio):
        self._studio = studio
        self.widget, layout = form.section(_("Export"), collapsed=True)
        self.folder = form.path(self._folder_chosen, folder=True, tip=_("Each export makes a new folder in this one."))
        layout.addRow(_("Into:"), self.folder)
        self.pair = form.check(
            _("also without lesions"), "exportPair", _("Writes the same series without lesions too.")
        )
        self.changed_only = form.check(
            _("changed slices only"), "exportChangedOnly", _("Leaves out slices that hold no lesion.")
        )
        self.label_map = form.check(
            _("label map"), "exportLabelMap", _("Writes the segmentation as a label map, which few programs read yet.")
        )
        layout.addRow(form.row(self.pair, self.changed_only, self.label_map))
        self.database = form.check(
            _("into Slicer's DICOM database"), "exportToDatabase", _("Imports the written series afterwards.")
        )
        layout.addRow(self.database)
        default = _("by the case")
        layout.addRow(_("Patient name:"), form.line("patientName", default, _("After SYNTHETIC, which always stays.")))
        layout.addRow(_("Patient ID:"), form.line("patientId", default, _("After SYN-, which always stays.")))
        layout.addRow(_("Study:"), form.line("studyDescription", _("research only"), _("After SYNTHETIC.")))
        layout.addRow(_("Series:"), form.line("seriesDescription", _("lesions"), _("After SYNTHETIC.")))
        self.mark = qt.QCheckBox(_("marked SYNTHETIC"))
        self.mark.setChecked(True)
        self.mark.setEnabled(False)
        self.mark.setToolTip(_("Every exported object says that it is synthetic. This can't be switched off."))
        layout.addRow(self.mark)
        self.export = form.button(_("Export DICOM, segmentation and boxes"), self._export)
        layout.addRow(self.export)
        studio.changed.connect(self.refresh)

    def refresh(self):
        """Shows the state of the studio."""
        studio = self._studio
        if studio.parameters is None:
            return
        if self.folder.currentPath != studio.parameters.exportFolder:
            self.folder.setCurrentPath(studio.parameters.exportFolder)
        composition = studio.composition
        missing = [] if composition is not None and composition.case is not None else [_("a composed lesion")]
        missing += [] if studio.parameters.exportFolder.strip() else [_("a folder to write into")]
        missing += [_("an up-to-date composition (press Apply, or wait for the preview)")] if studio.stale else []
        missing += [_("the end of the current work")] if studio.session.ticket is not None else []
        form.enable(self.export, _("Writes a new folder with everything of this case."), missing)

    def _folder_chosen(self):
        if self._studio.parameters is not None:
            self._studio.parameters.exportFolder = self.folder.currentPath

    def _export(self):
        studio, p = self._studio, self._studio.parameters
        parent = Path(p.exportFolder.strip())
        if not parent.is_dir():
            studio.say(_("There is no folder {path}. Choose one that exists.").format(path=parent), problem=True)
            return
        out = free_folder(parent, "synthetic")
        to_database = p.exportToDatabase

        def done(folder):
            told = _("Written: {folder}").format(folder=folder)
            if to_database and self._import(folder):
                told += _(" and imported into the DICOM database")
            studio.say(" ".join([told + ".", *sentences(ticket.notes)]), problem=bool(ticket.notes))

        ticket = studio.session.run(
            "export",
            title=_("Exporting"),
            image=studio.image,
            parameters=export_parameters(p, studio.composition),
            out=out,
            done=done,
            failed=studio.failed,
        )

    def _import(self, folder):
        from DICOMLib import DICOMUtils

        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not database.isOpen:
            self._studio.say(_("Slicer's DICOM database is not open; the files are written."), problem=True)
            return False
        return DICOMUtils.importDicom(str(folder))
