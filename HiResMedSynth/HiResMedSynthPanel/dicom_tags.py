"""The DICOM tags that travel with a volume: an allow-list of technical ones, none of the person."""

import json

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
    "PatientOrientation": "0020,0020", "ScanningSequence": "0018,0020", "SequenceVariant": "0018,0021",
    "MRAcquisitionType": "0018,0023", "RepetitionTime": "0018,0080", "EchoTime": "0018,0081",
    "InversionTime": "0018,0082", "EchoTrainLength": "0018,0091", "PixelIntensityRelationship": "0028,1040",
    "PixelIntensityRelationshipSign": "0028,1041",
}  # fmt: skip
OURS = "SYNTHETIC"  # so begin the derivations that we write; another's free text could name a person
OF_EACH_SLICE = ("ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "InstanceNumber")
KEPT = "HiResMedSynth.tags"  # attribute of a volume: its tags, for a saved scene that is opened where its files aren't


def collect(node):
    """Yields after each slice, at last the tags of all (a list), or [] where they aren't known."""
    database = getattr(slicer, "dicomDatabase", None)  # there only once the DICOM module has opened it
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    slices = node.GetImageData().GetDimensions()[2]
    each = []  # of the first slice all tags, of the others their own
    for uid in uids if database is not None and database.isOpen and len(uids) == slices else ():
        file = database.fileForInstance(uid)
        wanted = OF_EACH_SLICE if each else TAGS
        found = {word: text for word in wanted if file and (text := database.fileValue(file, TAGS[word]))}
        if not found:
            break
        if not found.get("DerivationDescription", OURS).startswith(OURS):
            del found["DerivationDescription"]
        each.append(found)
        yield None
    if each and len(each) == len(uids):
        node.SetAttribute(KEPT, json.dumps(each))
    else:
        each = json.loads(node.GetAttribute(KEPT) or "[]")
    if len(each) != slices:
        yield []
        return
    of_all = {keyword: text for keyword, text in each[0].items() if keyword not in OF_EACH_SLICE}
    yield [{**of_all, **own} for own in each]
