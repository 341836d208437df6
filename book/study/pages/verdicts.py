"""The page of verdicts: every comparison that a chapter judges, and how far its intervals can be trusted."""

from itertools import groupby

from tools.pages import chapter_number

from .. import records
from ..judged import JUDGED, Judged
from ..statistics import stricter
from ..verdicts import SCALE, Comparison
from .markdown import table

INTRODUCTION = """\
# Verdicts

Every comparison of two settings by accuracy that a chapter judges stands here, and `make tables` makes this page from the
run records. A test holds it to them, and the gate holds each chapter's words to this page: where a verdict
changes because seeds were added, the chapter fails until somebody has read the sentence again.

A difference is in percentage points of accuracy, one setting minus the other, on the same rows and the same seeds.
In brackets stands its 95 % interval over rows and seeds. The verdict is the first of these that fits **on test**:

- *better* or *worse*: the interval leaves out zero (*by less than a point* if it lies within one point of it);
- *no difference over one point*: the interval holds zero and lies within one point of it;
- *can't tell*: it holds zero and reaches further, or there is one seed alone.

Validation stands beside it and has no vote, because the learning rates were chosen on it. Only where it clearly says
the contrary of test does the verdict become *can't tell*.
"""
# The verdict second, so that a phone shows it without scrolling.
HEAD = ["comparison", "verdict", "test", "validation", "seeds", "computed in"]


def page() -> str:
    parts = [INTRODUCTION, _coverage(), _stricter()]
    for chapter, comparisons in groupby(JUDGED, key=lambda judged: judged.chapter):
        parts.append(f"## {title(chapter)}\n\n{table(HEAD, [_row(judged) for judged in comparisons])}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def title(chapter: str) -> str:
    """What a page's section is called; its link ends in the same words, as in ``verdicts.md#chapter-9``."""
    number = chapter_number(f"{chapter}.ipynb")
    return f"Chapter {number}" if number else chapter.replace("_", " ").capitalize()


def _row(judged: Judged) -> list[str]:
    if judged.missing or not judged.seeds:
        return [judged.says, f"not run yet: {', '.join(judged.missing)}", "", "", "0", ""]
    found = judged.compare()
    assert found.verdict in SCALE
    return [judged.says, f"**{found.verdict}**", str(found.test), str(found.validation), str(len(judged.seeds)), judged.made]


def _coverage() -> str:
    record = records.load("coverage")
    lines = [
        [
            name, n, f"{found['difference']['deviations']['seed']:.2f}",
            *(
                f"{100 * of['coverage']:.1f} %, ± {100 * of['half_width']:.2f}"
                for of in (found["accuracy"], found["difference"], found["difference"]["stricter"])
            ),
        ]
        for name, by_seeds in record["simulated"].items()
        for n, found in by_seeds.items()
    ]  # fmt: skip
    ours = record["ours"]["difference"]
    head = ["effect of seeds", "seeds", "its deviation in a difference", "an accuracy", "a difference", "a difference, stricter"]
    return (
        "## How often an interval holds the truth\n\n"
        "An interval that claims 95 % should hold the truth 95 times in 100. Whether it does can be tried where the truth is "
        f"known, in a simulation: {record['rows']:,} rows, two settings, {record['repeats']:,} repeats, with variances like "
        "those of our runs. In a difference of two settings of the sweep, on average over pairs, chance in one run on one row has a deviation of "
        f"{ours['chance']:.1f} points, rows one of {ours['row']:.1f}, and seeds one of {ours['seed']:.2f}. "
        "The table gives how often the interval held the truth, and its mean half-width in points.\n\n"
        f"{table(head, lines)}\n\n"
        f"Made by `{record['command']}`. If seeds mattered twice as much as they do here, the interval would break its promise, with three of them and with five. "
        "The first edition drew rows and seeds with replacement, which for three seeds can only bring back the same three: "
        "its part for the seeds held the truth about 75 times in 100."
    )


def _stricter() -> str:
    """Which verdicts lean on how the interval counts its degrees of freedom."""
    there = [judged for judged in JUDGED if not judged.missing and judged.seeds]
    lines, seen = [], set()
    for judged in there:
        now = judged.compare()
        then = Comparison(stricter(now.test), stricter(now.validation))
        if now.verdict != then.verdict and judged.says not in seen:
            lines.append(f"- {title(judged.chapter)}, {judged.says}: {now.verdict} here, {then.verdict} by the stricter one, {then.test}")
        seen.add(judged.says)
    return (
        "## Which verdicts are fragile\n\n"
        "Student's $t$ is wider the fewer degrees of freedom the error has. Our interval counts them before it takes off what rows "
        "and seeds have in common, a stricter one after that, which leaves fewer. As the last column above shows, the stricter one "
        "comes close to 95 % even where seeds matter much more, and is wider than it need be where they matter as they do on average "
        f"here. Of the {len(seen)} comparisons below that have runs, {len(lines)} would have another verdict by it. "
        f"Take these as the least sure:\n\n{chr(10).join(lines)}"
    )
