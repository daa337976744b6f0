"""The library speaks to people at a command line; in the panel its options are fields."""

import re

from slicer.i18n import tr as _


def sentences(notes):
    """What the backend noted of a job, as sentences to say."""
    told = (in_panel_words(note) for note in notes)
    return [note[:1].upper() + note[1:].rstrip(".") + "." for note in told]


def in_panel_words(text):
    """A remedy with the names of fields in place of options."""
    fields = {
        "--domain": _("the field Shows"),
        "--spacing-mm": _("the field Pixel spacing"),
        "--slice": _("the field Work on"),
        "--size-mm": _("the field Diameter"),
        "--min-distance-mm": _("the field Distance"),
        "--pleura-margin-mm": _("the field Keep off pleura"),
        "--vessel-margin-mm": _("the field Keep off vessels"),
        "--type": _("the field Type"),
        "--contrast": _("the field Contrast"),
        "--cnr": _("the field Contrast (CNR)"),
        "--window": _("the field Window"),
        "--crop": _("the field Crop"),
        "--out": _("the field Into"),
        "--count": _("number"),
        "--slices": _("slices"),
        "--series": _("Slicer's DICOM module"),
    }

    def field(found):
        command, option, value = found.groups()
        if command:
            return command
        number = value if value and value.lstrip("-")[:1].isdigit() else ""
        if option in fields:
            return f"{fields[option]} {number}".strip()
        return f"{elsewhere.format(option=option)} {value or ''}".strip()

    elsewhere = _("the command line's {option}")
    text = text.replace("hiresmedsynth lesion list", _("the section Bank"))
    text = text.replace("hiresmedsynth lesion train IMAGE --mask MASK", "hiresmedsynth lesion train")
    text = text.replace("--generator deform", _("'a bank lesion, deformed'"))
    text = text.replace("say --danger rule", _("choose 'rule' in the field Danger mask"))
    command = r"((?:python -m|hiresmedsynth) (?:[\w ]|\.(?=\w))+(?: --\S+(?: \w\S*)?)+)"  # its options are no fields
    text = re.sub(
        command
        + r"|(--[a-z-]+)(?: ([A-Z]+(?:\[,?[A-Z]+\]|[:,][A-Z]+)?|[a-z]+-[a-z]+|cxr|kub|mr\b|-?\d[\d:.,-]*\d|\d))?",
        field,
        text,
    )
    for name in fields.values():  # "--domain a, --domain b or --domain c" names one field
        text = re.sub(rf"{re.escape(name)}(?:(?:, | or ){re.escape(name)})+", name, text)
    return text
