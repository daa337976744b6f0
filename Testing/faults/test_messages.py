"""Every message of the product says what its reader can do, in words of the reader; docs/messages.md lists them."""

from __future__ import annotations

import re

from Testing.messages import GAP, PAGE, Message, messages, page

ACTIONS = {
    "add", "ask", "build", "check", "choose", "close", "compare", "complete", "convert", "copy", "correct", "count",
    "cut", "delete", "describe", "draw", "end", "exclude", "export", "fill", "free", "give", "go", "install",
    "keep", "label", "leave", "load", "make", "mark", "measure", "mend", "multiply", "name", "open", "outline",
    "pack", "pad", "prepare", "put", "raise", "rebuild", "reinstall", "reload", "remove", "rename", "replace",
    "resample", "restore", "resume", "run", "save", "say", "see", "send", "split", "start", "store", "take", "test",
    "train", "update", "use", "wait", "work", "write",
}  # fmt: skip
EQUIVALENT = "The nearest permitted place is"  # which answers what to give instead
INSIDE = re.compile(r"HiResMedSynthLib|Traceback|\.py\b|\bself\b|/(home|tmp|usr)/|0x[0-9a-f]{6}")
ALL = messages()


def alternatives(one: Message) -> list[str]:
    return one.remedy.split(" / ")


def test_there_are_as_many_as_the_source_has() -> None:
    assert len(ALL) > 500


def wrong_with(one: Message) -> str:
    """What is wrong with a message, or ""."""
    if not one.what.strip() or one.what.endswith("."):
        return "says nothing, or ends in a full stop"
    if INSIDE.search(one.what + one.remedy):
        return "names what its reader can't know"
    for remedy in alternatives(one):
        clauses = [clause for clause in re.split(r"[.?!:;,]\s+|\bor\s+|\belse\s+", remedy) if clause.split()]
        acts = any(clause.split()[0].lower().strip("'\"") in ACTIONS for clause in clauses)
        if not acts and remedy != GAP and not remedy.startswith(EQUIVALENT):
            return f"tells nothing to do: '{remedy}'"
        if remedy != GAP and not remedy.rstrip().endswith((".", "!", "?", GAP)):
            return f"is no whole sentence: '{remedy}'"
    return ""


def test_each_message_tells_what_can_be_done() -> None:
    assert {f"{one.room}:{one.line}": why for one in ALL if (why := wrong_with(one))} == {}


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m Testing.messages"
