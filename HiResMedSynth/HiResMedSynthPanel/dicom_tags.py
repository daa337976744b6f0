"""The DICOM tags that travel with a volume: an allow-list of technical ones, none of the person."""

import slicer

TAGS = {
    "SOPClassUID": "0008,0016", "Modality": "0008,0060", "ImageType": "0008,0008", "InstanceNumber": "0020,0013",
    "Rows": "0028,0010", "Columns": "0028,0011", "NumberOfFrames": "0028,0008", "SamplesPerPixel": "0028,0002",
    "PhotometricInterpretation": "0028,0004", "BitsStored": "0028,0101", "BitsAllocated": "0028,0100",
    "PixelRepresentation": "0028,0103", "PixelPaddingValue": "0028,0120", "RescaleSlope": "0028,1053",
    "RescaleIntercept": "0028,1052", "WindowCenter": "0028,1050", "WindowWidth": "0028,1051",
    "PixelSpacing": "0028,0030", "ImagerPixelSpacing": "0018,1164", "NominalScannedPixelSpacing": "0018,2010",
    "SliceThickness": "0018,0050", "ImagePositionPatient": "0020,0032", "ImageOrientationPatient": "0020,0037",
    "GantryDetectorTilt": "0018,1120", "KVP": "0018,0060", "BodyPartExamined": "0018,0015",
    "PatientPosition": "0018,5100", "ViewPosition": "0018,5101", "ImageLaterality": "0020,0062",
    "Laterality": "0020,0060", "PresentationIntentType": "0008,0068", "BurnedInAnnotation": "0028,0301",
    "LossyImageCompression": "0028,2110", "SyntheticData": "0008,001C", "DerivationDescription": "0008,2111",
}  # fmt: skip
OURS = "SYNTHETIC"  # so begin the derivations that we write; another's free text could name a person
OF_EACH_SLICE = ("ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "InstanceNumber")


def collect(node):
    """Yields after each slice, at last the tags of all (a list), or [] where they aren't known."""
    database = getattr(slicer, "dicomDatabase", None)  # there only once the DICOM module has opened it
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not database.isOpen or len(uids) != node.GetImageData().GetDimensions()[2]:
        yield []
        return
    first, found, value = {}, [], database.fileValue
    for number, uid in enumerate(uids):
        file = database.fileForInstance(uid)
        if not file:
            yield []
            return
        if number == 0:
            first = {keyword: text for keyword, tag in TAGS.items() if (text := value(file, tag))}
            if not first.get("DerivationDescription", OURS).startswith(OURS):
                del first["DerivationDescription"]
            found.append(first)
        else:
            own = {keyword: text for keyword in OF_EACH_SLICE if (text := value(file, TAGS[keyword]))}
            found.append({**{k: v for k, v in first.items() if k not in OF_EACH_SLICE}, **own})
        yield None
    yield found
