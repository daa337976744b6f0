"""docs/messages.md: every message of the product with what its reader can do, taken from the source.

python -m Testing.messages writes it; Testing/faults/test_messages.py holds both to their rules.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "messages.md"
GAP = "…"  # what is filled in when the message is said
BASE = "HiResMedSynthError"
WRAPPERS = {"bad": (0, 2, "MEND"), "sound": (1, 3, "MEND")}  # of annotations_files: places of what and remedy, default
HEAD = """# Every message, and what to do

Taken from the source by `python -m Testing.messages`; a test keeps it up to date. … stands for what is filled in; a message also names the file, folder or field concerned where there is one. Alternatives are separated by " / ".

Anything else that the program says as an error is a bug of ours: it says so, and asks for a report.
"""  # noqa: E501


@dataclass(frozen=True, kw_only=True, order=True)
class Message:
    """What is wrong, what to do, and in which part of the program it is said (`room`: file without suffix)."""

    room: str
    what: str
    remedy: str
    line: int


def messages() -> list[Message]:
    """Every message of the library, by its source."""
    files = sorted((ROOT / "HiResMedSynthLib").rglob("*.py"))
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in files}
    kinds = error_classes(trees.values())
    constants = _constants(trees.values())
    found = []
    for path, tree in trees.items():
        room = path.relative_to(ROOT / "HiResMedSynthLib").with_suffix("").as_posix()
        scopes = [_Scope(scope.name, scope, list(_calls(scope)), _assigned(scope)) for scope in _functions(tree)]
        shared = {**constants, **_constants([tree]), **_returned(scopes)}
        given = _passed(scopes)
        for scope in scopes:
            known = {**shared, **given.get(scope.name, {}), **scope.local}
            for call in scope.calls:
                told = _told(call, kinds, known)
                if told is not None and not (room == "annotations_files" and scope.name in WRAPPERS):
                    found.append(Message(room=room, what=told[0], remedy=told[1], line=call.lineno))
    return sorted(found)


def error_classes(trees: Iterable[ast.Module]) -> set[str]:
    """Names of the error classes, whatever they derive from on the way."""
    parents = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found = {BASE}
    while more := {name for name, bases in parents.items() if bases & found} - found:
        found |= more
    return found


class _Scope(NamedTuple):
    """A function, the calls in it and its local texts."""

    name: str
    node: ast.FunctionDef
    calls: list[ast.Call]
    local: dict[str, ast.expr]


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield node


def _calls(scope: ast.FunctionDef) -> Iterator[ast.Call]:
    """Calls in a function, not those in functions within it: they are scopes of their own."""
    waiting: list[ast.AST] = list(scope.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call):
            yield node
        waiting += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def _told(call: ast.Call, kinds: set[str], known: dict[str, ast.expr]) -> tuple[str, str] | None:
    """(what, remedy) of a call that makes an error; None for other calls and for errors passed on."""
    name = call.func.id if isinstance(call.func, ast.Name) else ""
    named = {word.arg: word.value for word in call.keywords}
    if name in WRAPPERS:
        at, remedy_at, default = WRAPPERS[name]
        what = call.args[at]
        remedy = named.get("remedy") or (call.args[remedy_at] if len(call.args) > remedy_at else known[default])
    elif name in kinds and "remedy" in named and call.args:
        what, remedy = call.args[0], named["remedy"]
    else:
        return None
    if any(isinstance(part, ast.Attribute) and part.attr in ("what", "remedy") for part in (what, remedy)):
        return None  # an error that is told elsewhere, passed on
    return text_of(what, known), text_of(remedy, known)


def text_of(node: ast.expr, known: dict[str, ast.expr], depth: int = 0) -> str:
    """The text of an expression, `GAP` where only a run can tell."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part, known, depth) for part in parts)
        case ast.IfExp(body=one, orelse=other):
            return _alternatives([one, other], known, depth)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return text_of(left, known, depth) + text_of(right, known, depth)
        case ast.BoolOp(values=values):
            return _alternatives(values, known, depth)
        case ast.FormattedValue(value=ast.Name(id=name)) | ast.Name(id=name) if name in known and depth < 3:
            return text_of(known[name], known, depth + 1)
        case ast.Call(func=ast.Name(id=name)) if f"{name}()" in known and depth < 3:
            return text_of(known[f"{name}()"], known, depth + 1)
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="get"), args=[_, *default]) if name in known:
            held = known[name]
            return _alternatives([*held.values, *default], known, depth + 1) if isinstance(held, ast.Dict) else GAP
        case ast.Subscript(value=ast.Name(id=name)) if isinstance(known.get(name), ast.Dict):
            return _alternatives(known[name].values, known, depth + 1)  # type: ignore[attr-defined]
    return GAP


def _alternatives(values: Sequence[ast.expr], known: dict[str, ast.expr], depth: int) -> str:
    """The texts that are something, each once."""
    return " / ".join(dict.fromkeys(text for value in values if (text := text_of(value, known, depth))))


def _constants(trees: Iterable[ast.Module]) -> dict[str, ast.expr]:
    """Module level NAME = text."""
    return {
        target.id: node.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant | ast.JoinedStr | ast.Dict)
    }


def _returned(scopes: Sequence[_Scope]) -> dict[str, ast.expr]:
    """name() = what a function of the module returns, where that is text."""
    found: dict[str, ast.expr] = {}
    for scope in scopes:
        values = [node.value for node in ast.walk(scope.node) if isinstance(node, ast.Return) and node.value]
        if values and all(isinstance(value, ast.Constant | ast.JoinedStr | ast.IfExp) for value in values):
            found[f"{scope.name}()"] = ast.BoolOp(op=ast.Or(), values=values)
    return found


def _passed(scopes: Sequence[_Scope]) -> dict[str, dict[str, ast.expr]]:
    """Function -> argument -> what callers in the module give for it, as alternatives."""
    arguments = {scope.name: [one.arg for one in scope.node.args.args if one.arg != "self"] for scope in scopes}
    found: dict[str, dict[str, list[ast.expr]]] = {}
    for scope in scopes:
        for call in scope.calls:
            called = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
            if called not in arguments or called == scope.name:
                continue
            named = [(word.arg or "", word.value) for word in call.keywords]
            for name, value in [*zip(arguments[called], call.args, strict=False), *named]:
                told = scope.local.get(value.id, value) if isinstance(value, ast.Name) else value
                found.setdefault(called, {}).setdefault(name, []).append(told)
    return {
        called: {name: ast.BoolOp(op=ast.Or(), values=values) for name, values in given.items()}
        for called, given in found.items()
    }


def _assigned(scope: ast.FunctionDef) -> dict[str, ast.expr]:
    """Local name = text, where it is assigned once; several texts are alternatives; arguments by their default."""
    held: dict[str, list[ast.expr]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                pairs = [(target, node.value)]
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = list(zip(target.elts, node.value.elts, strict=False))
                for name, value in pairs:
                    if isinstance(name, ast.Name):
                        held.setdefault(name.id, []).append(value)
    return {
        name: values[0] if len(values) == 1 else ast.BoolOp(op=ast.Or(), values=values)
        for name, values in held.items()
        if name not in {inner.id for value in values for inner in ast.walk(value) if isinstance(inner, ast.Name)}
    }


def page() -> str:
    """The whole of docs/messages.md."""
    parts = [HEAD]
    for room, of_room in itertools.groupby(messages(), key=lambda one: one.room):
        rows = sorted({f"| {_cell(one.what)} | {_cell(one.remedy)} |" for one in of_room})
        parts.append("\n".join([f"## {room}\n", "| it says | do |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
