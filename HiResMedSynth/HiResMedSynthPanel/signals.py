"""Signal: who wants to know is told; pure Python, because custom Qt signals crash PythonQt."""


class Signal:
    """A list of callables that `emit` calls in the order they connected."""

    def __init__(self):
        self._slots = []

    def connect(self, slot):
        """Calls `slot` from now on."""
        self._slots.append(slot)

    def emit(self, *arguments):
        """Calls every slot."""
        for slot in list(self._slots):
            slot(*arguments)

    def clear(self):
        """Forgets every slot."""
        self._slots.clear()
