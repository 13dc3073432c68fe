"""The report on the papers' claims as files: ``report.json``, ``report.md``, ``report.html`` and ``plots/``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from xretrieve.bench import tables
from xretrieve.bench.claims import BY_KEY, Claim
from xretrieve.bench.claims_run import ClaimsReport, Found
from xretrieve.bench.plots import rounds_plot, save_png, spans_plot
from xretrieve.evaluation.html import environment
from xretrieve.evaluation.plots import svg
from xretrieve.utils.files import write_json, write_text

QUICK = "quick: not the measured result. Small budgets, one seed, parts of the real sets; only a full run measures."


@dataclass
class Plot:
    """A drawn figure with its name and caption."""

    name: str
    caption: str
    drawn: tuple[Any, Any]
    legend: bool


@dataclass
class _Heading:
    """What the page's header asks a report for."""

    warnings: list[str] = field(default_factory=list)


def save(report: ClaimsReport, out: Path) -> Path:
    """Write all files; the HTML page holds its plots itself, the Markdown page names those of ``plots/``."""
    drawn = {(key, one.data): plots(BY_KEY[key], one) for key, many in report.found.items() for one in many}
    for many in drawn.values():
        for plot in many:
            save_png(plot.drawn, out / "plots" / f"{plot.name}.png", plot.legend)
    write_text(out / "report.md", markdown(report, drawn))
    write_text(out / "report.html", page(report, drawn))
    write_json(out / "report.json", to_dict(report))
    return out / "report.html"


def to_dict(report: ClaimsReport) -> dict[str, Any]:
    """Plain values for JSON."""
    told = []
    for key, many in report.found.items():
        claim = BY_KEY[key]
        told.append({
            "key": key, "task": claim.task, "title": claim.title, "paper": claim.paper, "says": claim.says,
            "note": claim.note, "found": [asdict(one) for one in many], "skipped": report.skipped[key],
        })  # fmt: skip
    return {"quick": report.quick, "note": QUICK if report.quick else "", "created": report.created,
            "versions": report.versions, "seconds": report.seconds, "claims": told}  # fmt: skip


def columns(claim: Claim, found: Found) -> list[dict[str, Any]]:
    """The numbers of a row's line: name, label, and whether the interval is shown."""
    if claim.task != "multi_query":
        return [{"name": m, "label": m.replace("_", " "), "interval": True} for m in found.metrics]
    values = found.rows[0]["values"] if found.rows else {}
    names = list(takewhile(values.__contains__, (f"round{turn}_r1" for turn in count(1))))
    return [{"name": name, "label": f"after {turn}", "interval": turn == len(names)}
            for turn, name in enumerate(names, start=1)]  # fmt: skip


def plots(claim: Claim, found: Found) -> list[Plot]:
    """Rows with their intervals (for query sets round by round), and the differences."""
    if not found.rows:
        return []
    where, name = f"{claim.key}-{found.data}", found.metrics[0]
    words = name.replace("_", " ")
    if claim.task == "multi_query":
        turns = len(columns(claim, found))
        said = f"{found.data}: R@1 after each round, with 95 % bands"
        made = [Plot(where, said, rounds_plot(found.rows, turns), True)]
    else:
        labels = [row["name"] + ("*" if row["kind"] == "average" else "") for row in found.rows]
        spans = [row["intervals"][name] for row in found.rows]
        values = [row["values"][name] for row in found.rows]
        made = [Plot(where, f"{found.data}: {words}, with 95 % intervals", spans_plot(labels, values, spans, words),
                     False)]  # fmt: skip
    if found.pairs:
        gains = [pair["gains"][name] for pair in found.pairs]
        drawn = spans_plot([f"{pair['b']} against {pair['a']}" for pair in found.pairs],
                           [gain["value"] for gain in gains], [gain["interval"] for gain in gains],
                           f"difference of {words}, 95 % interval", zero=True)  # fmt: skip
        made.append(Plot(f"{where}-gains", f"{found.data}: paired differences of {words}", drawn, False))
    return made


Drawn = dict[tuple[str, str], list[Plot]]


def summary(report: ClaimsReport) -> list[tuple[str, dict[str, Any]]]:
    """The main differences: dataset and pair."""
    return [(one.data, pair) for many in report.found.values() for one in many for pair in one.pairs if pair["main"]]


def facts(report: ClaimsReport) -> list[tuple[str, str]]:
    """How the report was made."""
    measured = sorted({one for many in report.found.values() for found in many for one in found.measured_with})
    told = [("command", "xretrieve bench claims" + (" --quick" if report.quick else "")), ("made", report.created)]
    told += [("cells measured with", one) for one in measured]
    told += [(f"this call, {part}", f"{value:.0f} s") for part, value in report.seconds.items()]
    return [*told, *report.versions.items()]


def budget(found: Found) -> str:
    """What was changed in every row's recipe."""
    return f"Changed in every recipe: {'; '.join(found.keys)}." if found.keys else ""


def page(report: ClaimsReport, drawn: Drawn) -> str:
    """The HTML page."""
    told = []
    for key, many in report.found.items():
        claim = BY_KEY[key]
        shown = [
            {**asdict(one), "columns": columns(claim, one), "budget": budget(one),
             "rounds": claim.task == "multi_query", "printed": any(row["published"] for row in one.rows),
             "pairs_of": [(one.data, pair) for pair in one.pairs],
             "plots": [{"caption": p.caption, "svg": svg(*p.drawn, p.name, p.legend)} for p in drawn[key, one.data]]}
            for one in many
        ]  # fmt: skip
        told.append({"title": claim.title, "paper": claim.paper, "says": claim.says, "note": claim.note,
                     "found": shown, "skipped": report.skipped[key]})  # fmt: skip
    return environment("xretrieve.bench").get_template("claims.html").render(
        title="The papers' claims, measured" + (" (quick)" if report.quick else ""),
        setting=["Three claims, each beside what this toolkit measures; one command, `xretrieve bench claims`."],
        report=_Heading([QUICK] * report.quick + report.stopped),
        summary=summary(report), claims=told, facts=facts(report),
    )  # fmt: skip


def terminal(report: ClaimsReport) -> str:
    """The main differences in a few lines, for the terminal."""
    lines = [QUICK] * report.quick
    for data, pair in summary(report):
        (metric, found), *_ = pair["gains"].items()
        lines += [f"{data}: {pair['what']}", f"    {metric} {tables.gained(found)}: {pair['verdict']}; "
                  f"published: {pair['published'] or 'none known'}"]  # fmt: skip
    skipped = [(key, name, why) for key, many in report.skipped.items() for name, why in many.items()]
    lines += [f"not measured, {key}, {name}: {why}" for key, name, why in skipped]
    return "\n".join([*lines, *(f"stopped: {why}" for why in report.stopped)])


def markdown(report: ClaimsReport, drawn: Drawn) -> str:
    """The Markdown page."""
    lines = ["# The papers' claims, measured" + (" (quick)" if report.quick else ""), ""]
    lines += [f"**{QUICK}**", ""] * report.quick
    lines += [f"**stopped: {why}**" for why in report.stopped]
    lines += ["## What was found", "", *_pairs(summary(report), with_data=True), "", _READING]
    for key, many in report.found.items():
        claim = BY_KEY[key]
        lines += ["", f"## {claim.title}", "", f"> {claim.says} ({claim.paper})", "", claim.note]
        for one in many:
            lines += ["", f"### {one.data}", ""]
            lines += [text for text in (f"{one.setting}." * bool(one.setting), budget(one)) if text]
            lines += [f"Rows without a finished cell: {', '.join(one.absent)}."] if one.absent else []
            if one.rows and claim.task == "multi_query":
                lines += ["", "R@1 after each round, percent:"]
            if one.rows:
                lines += ["", *_rows(claim, one)]
            if one.pairs:
                lines += ["", *_pairs([(one.data, pair) for pair in one.pairs])]
            for plot in drawn[key, one.data]:
                lines += ["", f"![{plot.caption}](plots/{plot.name}.png)"]
        if report.skipped[key]:
            lines += ["", "Not measured:", "", *(f"- {name}: {why}" for name, why in report.skipped[key].items())]
    lines += ["", "## How it was made", "", *(f"- {name}: {value}" for name, value in facts(report))]
    return "\n".join(lines) + "\n"


_READING = (
    "Differences are paired: the same test queries are drawn for both rows, 1,000 times, over the seeds that both "
    "have; brackets hold 95 % intervals. 'better' and 'worse': the interval leaves out zero. Published numbers were "
    "measured by others on other data."
)


def _rows(claim: Claim, found: Found) -> list[str]:
    shown, printed = columns(claim, found), any(row["published"] for row in found.rows)
    lines = tables.heading(["row", "what", "seeds", *(c["label"] for c in shown), "sd over seeds", *tables.COSTS,
                            *["published by others"] * printed])  # fmt: skip
    for row in found.rows:
        numbers = [
            tables.spread(row["values"][c["name"]], row["intervals"][c["name"]]) if c["interval"]
            else f"{row['values'][c['name']]:.1f}" for c in shown
        ]  # fmt: skip
        figures = ", ".join(f"{name} {value}" for name, value in row["published"].get("values", {}).items())
        theirs = [f"{row['published']['name']}: {figures}" if figures else ""] * printed
        deviation = tables.deviation(row["sd"][found.metrics[0]])
        lines.append(tables.line([tables.label(row), row["about"], tables.seeds_of(row), *numbers, deviation,
                                  *tables.costs(row), *theirs]))  # fmt: skip
    return lines


def _pairs(rows: list[tuple[str, dict[str, Any]]], with_data: bool = False) -> list[str]:
    if not rows:
        return ["Nothing is measured yet."]
    lines = tables.heading(["question", *["data"] * with_data, "row", "against", "metric", "difference; relative",
                            "seeds", "measured here", "published by others"])  # fmt: skip
    for data, pair in rows:
        for i, (metric, found) in enumerate(pair["gains"].items()):
            first = [pair["verdict"], pair["published"] or "none known"] if i == 0 else ["", ""]
            against = f"`{pair['a']}`" + (" (chosen by these numbers)" if pair["chosen"] else "")
            lines.append(tables.line([pair["what"] if i == 0 else "", *[data] * with_data, f"`{pair['b']}`", against,
                                      metric.replace("_", " "), tables.gained(found),
                                      " ".join(map(str, found["seeds"])), *first]))  # fmt: skip
    return lines
