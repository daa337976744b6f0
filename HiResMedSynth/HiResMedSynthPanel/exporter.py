"""What an export is made of: parameters of the job, and a free folder to write it to."""

FIELDS = {
    "patient_name": "patientName",
    "patient_id": "patientId",
    "study_description": "studyDescription",
    "series_description": "seriesDescription",
}


def export_parameters(parameters, composition):
    """A callable(client) that sends the drawn lesions and gives the parameters of an export job."""
    labels = {name: getattr(parameters, field) for name, field in FIELDS.items()}
    pair, changed_only = parameters.exportPair, parameters.exportChangedOnly
    seg = "labelmap" if parameters.exportLabelMap else "binary"

    def prepare(client):
        return {
            "case": composition.case,
            "lesions": client.send_bytes(composition.lesions),
            "pair": pair,
            "changed_only": changed_only,
            "seg": seg,
            "labels": labels,
        }

    return prepare


def folder_number(parent, stem):
    """One more than the highest number of the folders `stem-NUMBER` under `parent`."""
    numbers = [path.name.removeprefix(f"{stem}-") for path in parent.glob(f"{stem}-*")]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def free_folder(parent, stem):
    """The next one of the folders `stem-0001`, `stem-0002` ... under `parent`."""
    return numbered_folder(parent, stem, folder_number(parent, stem))


def numbered_folder(parent, stem, number):
    """The folder `stem-NUMBER` under `parent`."""
    return parent / f"{stem}-{number:04d}"
