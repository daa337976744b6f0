"""A spec with every key, commented, as `hiresmedsynth dataset --example` prints it."""

EXAMPLE = """\
# A data set of synthetic cases. Only [backgrounds] is needed; what is commented out shows the default.
# hiresmedsynth dataset spec.toml --dry-run     says what it would make
# Paths are relative to this file; * and ** are wild cards.

[backgrounds]
files = ["scans/*"]           # DICOM folders (a series each), DICOM, NIfTI, NRRD, MHA, PNG, TIFF, JPEG files
# slices = "whole"            # "each": every slice of a volume is a background of its own
# spacing_mm = [0.14, 0.14]   # between rows, between columns, for all files that don't tell it
# A table patients.csv (columns file,patient) beside this file says whose an image is, before DICOM's Patient ID;
# its column spacing_mm the spacing of each, where they differ.
# generated = { count = 20, seed = 0 }   # chest films to make; also: sex = "F", model = "NAME", size = 512

[cases]
# count = 100                 # --count N goes before it; the first cases stay the same
# seed = 0                    # the same spec and seed give the same data set, byte for byte
# domain = "lung-ct"          # for all: lung-ct, cxr (chest film), kub (abdominal film), mr; else by modality
# modality = "CT"             # of NIfTI, NRRD, MHA in HU: written as CT objects; by default as Secondary Captures
# lesions = [1, 3]            # in a case: a number, [smallest, largest], or weights { "1" = 3, "2" = 1 }
# types = "any"               # or { solid = 3, part-solid = 1, ground-glass = 1, calcified = 1, juxtapleural = 1 }
# size_mm = [4, 12]           # diameter; or [{ range = [4, 8], weight = 3 }, { range = [8, 20], weight = 1 }]
# sizes = "even"              # "history": within size_mm as often as in real patients
# contrast = [300, 700]       # to the surroundings, HU or stored values; by default the lesion's own; parts as size_mm
# cnr = [5, 20]               # the same over the noise (CT); instead of contrast
# zones = { upper = 2, lower = 1 }   # left, right, upper, lower, left-upper ...; by default anywhere
# generator = "deform"        # singan, learned: only with a split of one side (their donors can't be kept apart)
# model = "NAME"              # of that generator
# fusion = "better"           # alpha, paper
# watermark = false           # true: lesions marked invisibly (hiresmedsynth verify); a network may learn the mark
# negatives = 0.0             # share of cases without a lesion
# paired = false              # true: each case also without its lesions
# min_distance_mm = 5.0       # between lesions
# pleura_margin_mm = 2.0
# vessel_margin_mm = 1.0
# danger = "auto"             # what is forbidden: auto, rule, or a model
# prior = "auto"              # where lesions are likely: auto, density, or a model
# temperature = 1.0           # above 1 evens the prior out

[output]
# name = "Synthetic"          # letters and digits
# formats = ["dicom"]         # any of dicom, coco, yolo, nnunet, monai
# split = { train = 0.8, val = 0.1, test = 0.1 }   # by patient and lesion donor; { train = 1 } for none
# preview = false             # true: a preview.png in each DICOM case
# changed_only = false        # true: of a volume only the slices with a lesion
# seg = "binary"              # of DICOM cases; "labelmap": smaller, few programs read it yet
# sr = true                   # false: DICOM cases without measurements.dcm, the slowest of their files
# compress = "jpeg-ls"        # or "rle": DICOM series and SEG without loss; by default not at all
"""
