"""Sample data for the tutorial: a made-up chest, as a CT and as a film; computed here, so that it works offline."""

import numpy as np
import slicer

CATEGORY = "HiResMedSynth"
NAMES = {"ct": "HiResMedSynthSampleCT", "film": "HiResMedSynthSampleFilm"}
PIXEL_MM, SLICE_MM = 1.4, 2.5
SLICES, ROWS, COLUMNS, SLAB = 148, 180, 260, 6
FILM_PX, FILM_MM = 1024, 0.42
IS_FILM = "HiResMedSynth.sample"  # attribute of the film's node: it is still the sample where it was renamed
# grey levels that a new lesion on the film has: real ones of 20 mm have 70 to 100 there, and are as hard to find as in
# life
SEEN_AT_ONCE = 450.0


def register():
    """Lists both samples in Slicer's Sample Data module."""
    import SampleData

    titles = {"ct": "Made-up chest CT", "film": "Made-up chest film"}
    for kind, title in titles.items():
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY,
            sampleName=title,
            uris="",
            nodeNames=NAMES[kind],
            customDownloader=lambda _source, kind=kind: load(kind),
        )


def load(kind):
    """The sample as a volume node, computed at once."""
    return show(kind, make(kind))


def show(kind, made):
    """The volume node of what `make` made."""
    pixels, matrix = made
    node = slicer.util.addVolumeFromArray(pixels, matrix, NAMES[kind])
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    if kind == "ct":
        display.SetWindowLevel(1500, -600)
    else:
        display.SetWindowLevelMinMax(0, 4095)
        node.SetAttribute(IS_FILM, kind)
    return node


def is_film(node):
    """Whether a volume is the sample film."""
    return node is not None and node.GetAttribute(IS_FILM) == "film"


def make(kind):
    """(pixels `[slice, row, column]`, IJK to RAS) of a sample; no Slicer needed, so it can run in a thread."""
    chest = _chest(np.random.default_rng(11))
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0])
    if kind == "ct":
        noise = np.random.default_rng(12)
        shown = [np.clip(plane + noise.normal(0, 14, plane.shape), -1024, 3071) for plane in chest[36:132:2]]
        pixels = np.array([plane.astype(np.int16) for plane in shown])
        matrix = matrix @ np.diag([PIXEL_MM, PIXEL_MM, 2 * SLICE_MM, 1.0])
    else:
        pixels = _film(chest)[np.newaxis]
        # columns run to the patient's left, rows to the feet
        matrix = np.array([[-FILM_MM, 0, 0, 0], [0, 0, 1.0, 0], [0, -FILM_MM, 0, 0], [0, 0, 0, 1.0]])
    matrix[:3, 3] = -matrix[:3, :3] @ (np.array(pixels.shape[::-1]) - 1) / 2
    return pixels, matrix


def _chest(rng):
    """float32 HU `[slice, row, column]`, slices from the feet up, LPS; a body with lungs, heart, ribs and vessels.

    Made slab by slab: NumPy holds the interpreter's lock, and a window must not wait for it.
    """
    hu = np.empty((SLICES, ROWS, COLUMNS), dtype=np.float32)
    lung = np.empty(hu.shape, dtype=bool)
    slabs = [slice(first, first + SLAB) for first in range(0, SLICES, SLAB)]
    for slab in slabs:
        hu[slab], lung[slab] = _soft_tissue(slab, rng)
    for side in (-1, 1):
        for _branch in range(46):
            _vessel(hu, lung, rng, np.array([182 + rng.normal(0, 9), rng.normal(5, 7), side * 30.0]), side)
    for slab in slabs:
        _add_bones(hu[slab], slab)
    return hu


def _axes(slab):
    """(z, y, x) in mm of a slab's voxels, to be broadcast."""
    z = (np.arange(SLICES, dtype=np.float32)[slab] * SLICE_MM)[:, None, None]
    y = ((np.arange(ROWS, dtype=np.float32) - ROWS / 2) * PIXEL_MM)[None, :, None]
    x = ((np.arange(COLUMNS, dtype=np.float32) - COLUMNS / 2) * PIXEL_MM)[None, None, :]
    return z, y, x


def _body(z, y, x):
    """Below 1 inside the body, growing outwards."""
    taper = np.clip((z - 310) / 45, 0, 1)
    return (x / (165 - 105 * taper**2)) ** 2 + (y / (112 - 45 * taper)) ** 2


def _soft_tissue(slab, rng):
    """(HU, lung) of a slab without vessels and bones."""
    z, y, x = _axes(slab)
    body = _body(z, y, x)
    hu = np.where(body < 1, np.float32(-90), np.float32(-1000))
    hu[body < 0.86] = 45
    narrowing = np.sqrt(np.clip(1 - np.clip((z - 170) / 160, 0, 1) ** 2, 0, 1))
    lung = np.zeros(hu.shape, dtype=bool)
    for side in (-1, 1):
        across, along = (x - side * 74) / (58 * narrowing + 1e-3), (y + 2) / (78 * narrowing + 1e-3)
        dome = 92 + (62 if side < 0 else 52) * np.clip(1 - ((x - side * 68) / 62) ** 2 - ((y + 10) / 95) ** 2, 0, 1)
        lung |= (across**2 + along**2 < 1) & (z > dome) & (side * x > 14)
    lung &= ((x - 26) / 62) ** 2 + ((y + 38) / 48) ** 2 + ((z - 150) / 66) ** 2 >= 1  # heart
    lung &= ((x - 20) / 20) ** 2 + ((y - 8) / 38) ** 2 + ((z - 255) / 20) ** 2 >= 1  # aortic arch
    fine = rng.normal(0, 12, tuple(n // 6 + 2 for n in hu.shape)).repeat(6, 0).repeat(6, 1).repeat(6, 2)
    hu[lung] = -865 + fine[: hu.shape[0], : hu.shape[1], : hu.shape[2]][lung]
    return hu, lung


def _add_bones(hu, slab):
    """Spine, ribs and clavicles, and the trachea, into a slab."""
    z, y, x = _axes(slab)
    body = _body(z, y, x)
    spine = (x / 19) ** 2 + ((y - 66) / 17) ** 2 < 1
    hu[np.broadcast_to(spine, hu.shape)] = 260
    hu[spine & ((z % 26) < 6)] = 90
    shell = (body > 0.70) & (body < 0.80) & (z > 60) & (z < 320)
    slope = z - 0.42 * (y + 40) + 0.10 * np.abs(x)
    hu[shell & ((slope % 27) < 9)] = 420
    for side in (-1, 1):
        along = np.clip(side * x, 8, 150)
        clavicle = (z - 318 - 0.10 * along) ** 2 + (y + 58 - 0.12 * along) ** 2 < 36
        hu[clavicle & (side * x > 8) & (side * x < 150)] = 480
    trachea = (x / 8.5) ** 2 + ((y - 6) / 8.5) ** 2 < 1
    hu[trachea & (z > 225) & (body < 0.8)] = -990


def _vessel(hu, lung, rng, start, side):
    """Stamps one tapering, bending vessel into the lung, from the hilum outwards; (z, y, x) in mm."""
    steps = np.array([SLICE_MM, PIXEL_MM, PIXEL_MM])
    middle = np.array([0, ROWS / 2, COLUMNS / 2])
    direction = np.array([rng.normal(0, 0.8), rng.normal(0, 0.7), side * abs(rng.normal(0.8, 0.3))])
    place, radius = start.copy(), rng.uniform(2.0, 4.6)
    while radius > 0.8:
        direction = direction / np.linalg.norm(direction) + rng.normal(0, 0.13, 3)
        place = place + 1.6 * direction / np.linalg.norm(direction)
        radius *= 0.975
        at = place / steps + middle
        reach = np.ceil((radius + 1) / steps).astype(int)
        low, high = np.round(at).astype(int) - reach, np.round(at).astype(int) + reach + 1
        if (low < 0).any() or (high > hu.shape).any():
            return
        region = tuple(slice(a, b) for a, b in zip(low, high, strict=False))
        axes = [(np.arange(a, b) - c) * s for a, b, c, s in zip(low, high, at, steps, strict=False)]
        away = np.sqrt(axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2)
        share = np.clip(radius + 0.5 - away, 0, 1) * lung[region]
        hu[region] = np.maximum(hu[region], -865 + share * 900)


def _film(chest):
    """uint16 `[row, column]`, 12 bits, bones bright: rays from front to back, on a scattering, noisy film."""
    water = np.array([np.clip(plane / 1000 + 1, 0, None).sum(axis=0) for plane in chest]) * PIXEL_MM  # [slice, column]
    rows = (SLICES - 1) / 2 + ((FILM_PX - 1) / 2 - np.arange(FILM_PX)) * FILM_MM / SLICE_MM
    columns = (COLUMNS - 1) / 2 + (np.arange(FILM_PX) - (FILM_PX - 1) / 2) * FILM_MM / PIXEL_MM
    rows = np.clip(rows, 0, SLICES - 1)
    across = np.stack([np.interp(columns, np.arange(COLUMNS), line, left=0, right=0) for line in water])
    low = np.floor(rows).astype(int)
    share = (rows - low)[:, None]
    picture = across[low] * (1 - share) + across[np.minimum(low + 1, SLICES - 1)] * share
    grey = 3900 * np.clip(picture / 235, 0, 1) ** 0.8 + np.random.default_rng(13).normal(0, 14, picture.shape)
    return np.clip(grey, 0, 4095).astype(np.uint16)
