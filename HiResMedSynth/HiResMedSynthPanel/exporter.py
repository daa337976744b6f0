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
    """The first number whose folder `stem-NUMBER` under `parent` doesn't exist."""
    number = 1
    while (parent / f"{stem}-{number:04d}").exists():
        number += 1
    return number


def free_folder(parent, stem):
    """The first folder `stem-0001`, `stem-0002` ... under `parent` that doesn't exist."""
    return parent / f"{stem}-{folder_number(parent, stem):04d}"
