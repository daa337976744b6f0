"""What the library says of options is said of fields in the panel."""

from __future__ import annotations

import pytest


@pytest.mark.usefixtures("bench")  # the application finds the panel's modules
def test_remedies_name_fields_not_options() -> None:
    from HiResMedSynthPanel.words import in_panel_words

    told = in_panel_words("Say it with --domain lung-ct, --domain cxr or --domain kub.")
    assert told == "Say it with the field Shows."
    told = in_panel_words("Say it with --domain lung-ct, --domain cxr, --domain kub or --domain mr.")
    assert told == "Say it with the field Shows."
    assert in_panel_words("Say --domain mr for it.") == "Say the field Shows for it."
    assert "--" not in in_panel_words("Choose one with --slice NUMBER, or name another --domain.")
    assert "--" not in in_panel_words("Ask for a smaller lesion (--size-mm), or smaller margins.")
    told = in_panel_words("Train one: hiresmedsynth lesion train IMAGE --mask MASK.")
    assert told == "Train one: hiresmedsynth lesion train."
    told = in_panel_words("Give it: --contrast LOW:HIGH, below zero where it is darker, or --cnr LOW:HIGH, in noises.")
    assert told == "Give it: the field Contrast, below zero where it is darker, or the field Contrast (CNR), in noises."
    told = in_panel_words("Add one: hiresmedsynth models add FILE, or use --generator deform.")
    assert told == "Add one: hiresmedsynth models add FILE, or use 'a bank lesion, deformed'."
    told = in_panel_words("Ask for larger lesions here: --size-mm 7:13 or more.")
    assert told == "Ask for larger lesions here: the field Diameter 7:13 or more."
    told = in_panel_words("Give one window for all, centre and width in HU: --window -600,1500 for lungs.")
    assert told == ("Give one window for all, centre and width in HU: the field Window -600,1500 for lungs.")
    assert in_panel_words("Give one: --window CENTER,WIDTH.") == "Give one: the field Window."
    assert in_panel_words("Take --crop 128 or more.") == "Take the field Crop 128 or more."
    told = in_panel_words("Check the model on another picture, or say --danger rule.")
    assert told == "Check the model on another picture, or choose 'rule' in the field Danger mask."
    for told in (
        "Give one trained by python -m Training.train_danger --domain film.",
        "See: hiresmedsynth models list --kind background.",
    ):
        assert in_panel_words(told) == told
    assert in_panel_words("Give a place inside the image.") == "Give a place inside the image."
