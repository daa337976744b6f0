"""The panel of HiResMedSynth: one file a section, over one studio that holds what is being composed."""
