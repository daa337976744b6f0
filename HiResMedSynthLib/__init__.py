"""HiResMedSynth: synthetic radiological cases, composed from real or generated backgrounds and lesions.

Names are imported from their modules (`from HiResMedSynthLib.compose import compose`): this file imports nothing, so
that `import HiResMedSynthLib` costs nothing.
"""

__version__ = "0.1.0"
