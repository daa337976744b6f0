"""The scores of a reader study as text, as JSON, and as one HTML page without scripts or links."""

from __future__ import annotations

import dataclasses
import html
import json

from HiResMedSynthLib.evaluation.study_scores import PairScore, ReaderScore, StudyScores
from HiResMedSynthLib.evaluation.study_statistics import Estimate

Row = tuple[str, str]
TASKS = {
    "yes-no": "real or synthetic?",
    "2afc": "which of two is synthetic?",
    "4afc": "which of four is synthetic?",
}
HOW_TO_READ = (
    "Sensitivity: real images called real. Specificity: synthetic images called synthetic. d' and area: synthetic "
    "images are the signal; 0 and .5 are guessing. A criterion above 0: the reader rather says real; below: synthetic. "
)


def as_json(scores: StudyScores) -> str:
    """All figures; infinite and missing ones are null."""
    return json.dumps(dataclasses.asdict(scores), indent=1, ensure_ascii=False, allow_nan=False)


def as_text(scores: StudyScores) -> str:
    """A readable account, some lines a reader."""
    lines = [f"task        {TASKS[scores.task]} guessing gives {scores.chance:.0%}"]
    for reader in scores.readers:
        lines.append(f"\nreader      {reader.reader}")
        lines += [f"  {name:<24} {value}" for name, value in _rows(reader, scores.chance)]
    for pair in scores.pairs:
        lines.append(f"\nreaders     {pair.readers[0]} and {pair.readers[1]}")
        lines += [f"  {name:<24} {value}" for name, value in _pair_rows(pair)]
    lines += [f"note        {note}" for note in scores.notes]
    return "\n".join(lines)


def as_html(scores: StudyScores) -> str:
    """One page; names of readers are in it, pictures and names of files are not."""
    parts = []
    for reader in scores.readers:
        rows = "".join(_row(*row) for row in _rows(reader, scores.chance))
        curve = _curve(reader) if reader.roc else ""
        parts.append(f"<section><h2>Reader {html.escape(reader.reader)}</h2>{curve}<table>{rows}</table></section>")
    for pair in scores.pairs:
        rows = "".join(_row(*row) for row in _pair_rows(pair))
        names = " and ".join(map(html.escape, pair.readers))
        parts.append(f"<section><h2>Between {names}</h2><table>{rows}</table></section>")
    notes = "".join(f"<li>{html.escape(note)}" for note in scores.notes)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Scores of a reader study</title>"
        "<style>body{font:15px sans-serif;margin:2em auto;max-width:60em;padding:0 1em}th{text-align:left;"
        "padding:2px 1.5em 2px 0;font-weight:normal;color:#555;vertical-align:top}section{overflow:auto;"
        "border-top:1px solid #ccc}svg{float:right;margin:1em}h2{font-size:1.1em}</style>"
        f"<h1>Reader study: {html.escape(TASKS[scores.task])}</h1><p>Guessing gives {scores.chance:.0%}. Intervals are "
        f"of 95 %. {html.escape(HOW_TO_READ)}Research only, not for diagnosis.</p>{''.join(parts)}"
        f"<h2>Notes</h2><ul>{notes or '<li>none'}</ul><p>Study {scores.study_sha256[:16]}</p></html>\n"
    )


def estimate_text(one: Estimate | None, *, percent: bool = False) -> str:
    """The value with its interval, method and n."""
    if one is None:
        return "not defined by these answers"
    value, low, high = (
        "unbounded" if number is None else f"{number:.1%}" if percent else f"{number:z.3f}"
        for number in (one.value, one.low, one.high)
    )
    if one.low is None and one.high is None:
        return f"{value} ({one.method} gives no interval; n = {one.n})"
    return f"{value} ({low} to {high}, {one.method}; n = {one.n})"


def _rows(reader: ReaderScore, chance: float) -> list[Row]:
    same = reader.equivalence
    verdict = "is shown to guess" if same.p < 0.05 else "is not shown to guess"
    rows = [
        ("answered", f"{reader.answered} of {reader.trials}, {reader.median_seconds:.1f} s each (median)"),
        ("accuracy", estimate_text(reader.accuracy, percent=True)),
        (f"p against {chance:.0%}", f"{p_text(reader.p)}, exact binomial, two-sided"),
        ("as good as guessing?", f"{verdict} within {same.margin:.0%} (TOST, exact: p {p_text(same.p)})"),
    ]
    if (told := reader.yes_no) is not None:
        (kept, missed), (fooled, caught) = told.confusion.table
        rows += [
            ("real images", f"{kept} called real, {missed} called synthetic"),
            ("synthetic images", f"{fooled} called real, {caught} called synthetic"),
            ("sensitivity (real)", estimate_text(told.sensitivity, percent=True)),
            ("specificity (synthetic)", estimate_text(told.specificity, percent=True)),
            ("kappa with the truth", estimate_text(told.kappa_with_truth)),
            ("bias to one answer", f"p {p_text(told.bias_p)}, McNemar, exact: {missed} against {fooled}"),
        ]
        if told.detectability is not None:
            rows += [
                ("d'", estimate_text(told.detectability.d_prime)),
                ("criterion c", f"{told.detectability.criterion:z.3f}"),
            ]
        rows.append(("area under ROC curve", estimate_text(reader.area)))
    if reader.choice_d_prime is not None:
        rows.append(("d'", estimate_text(reader.choice_d_prime)))
        rows.append(("letters chosen", ", ".join(f"{letter} {count}" for letter, count in reader.positions.items())))
    for size in reader.by_size:
        end = "and more" if size.high_mm is None else f"to below {size.high_mm:g}"
        rows.append((f"accuracy, {size.low_mm:g} {end} mm", estimate_text(size.accuracy, percent=True)))
    for level, one in enumerate(reader.by_confidence, start=1):
        if one is not None:
            rows.append((f"accuracy, confidence {level}", estimate_text(one, percent=True)))
    return rows


def _pair_rows(pair: PairScore) -> list[Row]:
    return [
        ("trials of both", str(pair.trials)),
        ("kappa between them", estimate_text(pair.kappa)),
        ("only one is right", f"{pair.readers[0]} {pair.only_first_right}, {pair.readers[1]} {pair.only_second_right}"),
        ("difference", f"p {p_text(pair.mcnemar_p)}, McNemar, exact"),
    ]


def p_text(p: float) -> str:
    """A p value, with its power of ten where it is small."""
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _row(name: str, value: str) -> str:
    return f"<tr><th>{html.escape(name)}<td>{html.escape(value)}"


def _curve(reader: ReaderScore) -> str:
    points = " ".join(f"{20 + 140 * alarm:.1f},{160 - 140 * hit:.1f}" for alarm, hit in reader.roc)
    dots = "".join(f"<circle cx={20 + 140 * a:.1f} cy={160 - 140 * h:.1f} r=2.5 />" for a, h in reader.roc)
    return (
        "<svg width=190 height=185 role=img aria-label='ROC curve'><path d='M20 20V160H160' fill=none stroke=#999 />"
        "<path d='M20 160L160 20' stroke=#ccc stroke-dasharray=3 />"
        f"<polyline points='{points}' fill=none stroke=#06c stroke-width=2 />{dots}"
        "<text x=20 y=178 font-size=11>real images called synthetic</text>"
        "<text transform='translate(13 158)rotate(-90)' font-size=11>synthetic called synthetic</text></svg>"
    )
