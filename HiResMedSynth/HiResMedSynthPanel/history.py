"""History: the panel's own undo. Each step holds the points and what was composed of them; scene undo isn't touched."""

from dataclasses import dataclass

MOST_BYTES = 256 * 2**20


@dataclass
class Step:
    """A state that can be come back to; `title` names what led to it."""

    title: str
    points: tuple
    composition: object = None
    made_from: str = ""


class History:
    """Steps in their order, and which of them is now."""

    def __init__(self):
        self._steps, self._now = [Step("", ())], 0

    def reset(self, points=(), composition=None):
        """Forgets everything before now."""
        self._steps, self._now = [Step("", points, composition)], 0

    def add(self, title, points):
        """A new step; what was undone before is gone. A step that changes nothing isn't added."""
        if points == self.now.points:
            return
        del self._steps[self._now + 1 :]
        self._steps.append(Step(title, points))
        self._now += 1
        while len(self._steps) > 2 and sum(s.composition.size for s in self._steps if s.composition) > MOST_BYTES:
            del self._steps[0]
            self._now -= 1

    @property
    def now(self):
        """The present step."""
        return self._steps[self._now]

    @property
    def undo_title(self):
        """What undo would take back; empty where there is nothing."""
        return self.now.title if self._now > 0 else ""

    @property
    def redo_title(self):
        """What redo would do again; empty where there is nothing."""
        return self._steps[self._now + 1].title if self._now + 1 < len(self._steps) else ""

    def undo(self):
        """The step before, now the present one."""
        self._now -= 1
        return self.now

    def redo(self):
        """The step after, now the present one."""
        self._now += 1
        return self.now
