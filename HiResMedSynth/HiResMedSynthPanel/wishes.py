"""Wishes: what each point asks for, kept as short JSON in the point's description, so that it is saved with it."""

import dataclasses
import json
from dataclasses import dataclass

KEEP = "keep_shape"
OF_FORM = ("type", "size_mm", "bank_entry", "seed", "generator", "model")


@dataclass(frozen=True)
class Wish:
    """One lesion that is wanted at a point.

    Args:
        key: names the lesion for as long as it lives (control point ids change with undo).
        type, size_mm, bank_entry, contrast, cnr, rotation_degrees, seed, attempt, generator, model, model_sha256: as a
            LesionRequest has them.
        locked: it can't be dragged, and variants leave it as it is.
        others: (name, value) of what else a LesionRequest may have; the panel keeps it as it came.
    """

    key: int
    type: str = "any"
    size_mm: tuple = (8.0, 8.0)
    bank_entry: str = None
    contrast: tuple = None
    cnr: tuple = None
    rotation_degrees: float = None
    seed: int = 0
    attempt: int = 0
    locked: bool = False
    generator: str = "deform"
    model: str = None
    model_sha256: str = None
    others: tuple = ()

    @property
    def maker(self):
        """What makes its form: "deform", the name of a generator, or that and its model's after a space."""
        return self.generator if self.model is None else f"{self.generator} {self.model}"

    @property
    def what(self):
        """What it is to be, in a word or two."""
        return self.bank_entry or self.model or self.type

    def kept(self, drawn):
        """This wish, asking for the form that was drawn, where that was chosen among several by its looks."""
        if not drawn.get(KEEP):
            return self
        others = {**dict(self.others), KEEP: True}
        return dataclasses.replace(self, attempt=drawn["attempt"], others=tuple(sorted(others.items())))

    def freed(self):
        """This wish, open to any form again."""
        return dataclasses.replace(self, others=tuple(pair for pair in self.others if pair[0] != KEEP))

    def request(self, place):
        """The lesion request at a place (slice, row, column)."""
        fields = dataclasses.asdict(self)
        del fields["key"], fields["locked"], fields["others"]
        return {**fields, **dict(self.others), "place": list(place)}


def of_request(key, request):
    """The wish of a lesion request (without its place), as a case holds it; TypeError where it is none."""
    known = {field.name for field in dataclasses.fields(Wish)} - {"key", "locked", "others"}
    fields = {name: _plain(value) for name, value in request.items() if name in known}
    others = tuple(sorted((name, _plain(value)) for name, value in request.items() if name not in known))
    return Wish(key=key, **fields, others=others)


def _plain(value):
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def write(node, index, wish):
    """Sets a point's wish."""
    text = json.dumps(dataclasses.asdict(wish), separators=(",", ":"))
    if node.GetNthControlPointDescription(index) != text:
        node.SetNthControlPointDescription(index, text)
    if bool(node.GetNthControlPointLocked(index)) != wish.locked:
        node.SetNthControlPointLocked(index, wish.locked)


def read(node, index):
    """A point's wish; None where it has none yet (just placed) or it can't be read."""
    try:
        fields = json.loads(node.GetNthControlPointDescription(index))
        return Wish(**{name: _plain(value) for name, value in fields.items()})
    except (ValueError, TypeError, AttributeError):
        return None


def placed(node):
    """[(index, wish, world position)] of the points that are placed and have a wish."""
    found = []
    for index in range(node.GetNumberOfControlPoints() if node is not None else 0):
        if node.GetNthControlPointPositionStatus(index) != node.PositionDefined:
            continue
        wish = read(node, index)
        if wish is not None:
            found.append((index, wish, node.GetNthControlPointPositionWorld(index)))
    return found


def index_of(node, key):
    """Index of the point whose wish has that key; -1 where there is none."""
    return next((index for index, wish, _position in placed(node) if wish.key == key), -1)


def new(node, size_mm, contrast=None):
    """A wish with a key and a seed of its own; `contrast` in grey levels, None: the lesion's own."""
    wishes = [wish for _index, wish, _position in placed(node)]
    key = max([wish.key for wish in wishes], default=0) + 1
    seed = max([wish.seed for wish in wishes], default=-1) + 1
    wanted = None if contrast is None else (contrast, contrast)
    return Wish(key=key, size_mm=(size_mm, size_mm), contrast=wanted, seed=seed)


def snapshot(node):
    """The placed points as plain values, for undo."""
    return tuple((wish, tuple(position)) for _index, wish, position in placed(node))


def restore(node, points):
    """Puts the points of a snapshot in place of those there are."""
    was = node.StartModify()
    node.RemoveAllControlPoints()
    for wish, position in points:
        index = node.AddControlPointWorld(*position)
        write(node, index, wish)
    node.EndModify(was)
