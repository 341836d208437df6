"""The book's page of results, as Markdown, from the records of the sweep and of the baselines."""

from collections import defaultdict
from functools import partial
from statistics import mean

from .. import records
from ..claims import audit_claims
from ..statistics import accuracy, estimate, macro_f1, missed
from ..verdicts import compare
from . import headline
from .markdown import table
from .speed import cpu, speed

INTRODUCTION = """\
# Results

Every figure on this page is worked out from the run records in `results/` by `make tables`, and a test holds the
page to them. You can [make the records again](making.md).

Accuracies and shares are in percent, and differences in percentage points. A value is the mean over seeds, followed by
its 95 % interval over rows and seeds in square brackets ([how far can you trust it?](verdicts.md#how-often-an-interval-holds-the-truth)).
Settings were chosen on validation, and test was read once, at the end of each run. What you may conclude from a
difference is on the page of [verdicts](verdicts.md).
"""
# What the settings' names say, in the order of the tables.
FAMILIES = {
    "recipe": "the command line's own recipe: batches of 4, all linear layers at s = 8, in float32",
    "attention": "LoRA on q, k, v and the attention's output",
    "all-linear": "LoRA on all six linear layers of a block",
    "full": "full fine-tuning",
    "last-block": "the last block and the head",
    "bias": "every bias and the head",
    "head": "the head alone",
    "public-rate": "LoRA on attention at the public experiment's rate, base frozen",
    "public": "the public experiment as published: all but the adapted weights trains",
    "reinit": "the encoder re-initialised: no pre-training",
    "epochs-3": "LoRA on all six linear layers for three epochs, where the others train for one",
    "batch-8": "all six linear layers for one epoch in batches of 8, at a larger scaling and a rate of its own for the head",
    "head-first": "the same, the head fitted to the frozen features before",
    "variant": "variants of LoRA on all six linear layers at rank 8, each at the best of its rates",
    "fp32": "all six linear layers in float32, where the others train in bf16; batch 8 where it says so",
    "alpha": "one rate for every rank, and three rules for s: `alpha` 2, `alpha-r` 16/r, `alpha-sqrt-r` 2 sqrt(8/r)",
}
SCORES = ["test accuracy", "test macro-F1"]
RANDOM = "random"  # labels by chance: no test, and a table of its own


def family(name: str) -> str:
    return next((f for f in sorted(FAMILIES, key=len, reverse=True) if name == f or name.startswith(f"{f}-")), name)


def page() -> str:
    """The whole page, with a part for every backbone that has records."""
    text = INTRODUCTION
    if records.has(headline.FULL):
        text += f"\n## One recipe, every method\n\n{headline.every_method()}\n"
    text += f"\n## Baselines\n\n{baselines()}\n"
    for backbone in sorted(path.name for path in (records.RESULTS / "sweep").iterdir() if path.is_dir()):
        text += f"\n## {backbone}\n" + "".join(f"\n{part}\n" for part in parts(f"sweep/{backbone}"))
    return f"{text}\n{speed()}\n".rstrip() + "\n"


def baselines() -> str:
    """What fine-tuning must beat, from `python -m book.study.runs.baselines`."""
    if not records.exists("yardsticks"):
        return "Not measured yet."
    rows, lines = records.facts("test"), []
    for name, found in records.baselines().items():
        score = partial(estimate, [found], rows)
        lines.append([
            name, f"{found['parameters']['trainable']:,}", f"{100 * found['validation']['accuracy']:.2f}", score(accuracy),
            f"{100 * score(accuracy, without_leaks=True).mean:.2f}", score(macro_f1),
        ])  # fmt: skip
    return table(["baseline", "parameters trained", "validation accuracy", *SCORES[:1], _without(rows), *SCORES[1:]], lines)


def _without(rows) -> str:
    return f"without the {len(rows.in_train)} rows also in train"


def parts(folder: str) -> list[str]:
    """The tables of one backbone, whose records lie in ``folder``."""
    groups, rows = records.groups(folder), records.facts("test")
    tested = {name: runs for name, runs in groups.items() if all(run["test"] for run in runs)}
    order = list(FAMILIES)
    names = sorted(tested, key=lambda name: (order.index(family(name)), _rank(tested[name][0]), name))
    found = [claims(tested, rows, folder.rpartition("/")[2])]
    if names:
        found += [settings(names, tested, rows, failures(groups)), missed_table(names, tested, rows), differences(names, tested)]
    if RANDOM in {name.partition("-")[0] for name in groups}:
        found.append(random_labels(groups))
    return [*found, rates(folder), machines(groups)]


def _rank(run: dict) -> int:
    return run["lora"]["r"] if run["lora"] else 0


def claims(groups: dict, rows, backbone: str) -> str:
    lines = ["### The four public claims", ""]
    for number, found in enumerate(audit_claims(groups, rows, backbone=backbone), 1):
        lines += [f"{number}. *{found.claim}*: **{found.says}**.", ""]
        lines += [*(f"   - {line}" for line in found.evidence), ""]
    lines.append(
        "The claims are those of [a public experiment](https://github.com/AishwaryaHastak/LoRA-implementation) on DistilBERT. "
        "A score holds if its whole interval lies at or above what rounds to the claimed one; differences are little "
        "if their whole intervals lie within one point; an order holds if each of its differences lies above zero. "
        "`python -m book.study.runs.sweep --model distilbert` makes the runs that test them on DistilBERT, where a model hub answers."
    )
    return "\n".join(lines)


def failures(groups: dict) -> str:
    """Settings with runs that did not learn, which have no test and so no line in the tables."""
    failed = {name: [bool(run["failure"]) for run in runs] for name, runs in groups.items()}
    lines = [f"`{name}` ({sum(runs)} of {len(runs)} seeds)" for name, runs in sorted(failed.items()) if any(runs)]
    return f"\n\nNot in the tables, because a run called every row the same or diverged: {', '.join(lines)}." if lines else ""


def settings(names: list[str], groups: dict, rows, failed: str) -> str:
    lines = []
    for name in names:
        runs = groups[name]
        first, score = runs[0], partial(estimate, runs, rows)
        validation = [100 * run["validation"]["accuracy"] for run in runs]
        rate = first["train"]["lr"] if first["method"] != "head" else first["train"]["head_lr"]
        peak, seconds = cost(runs)
        lines.append([
            f"`{name}`", len(runs), f"{rate:g}", f"{first['parameters']['trainable']:,}",
            f"{first['parameters']['trainable_without_head']:,}", f"{mean(validation):.2f}", score(accuracy),
            f"{100 * score(accuracy, without_leaks=True).mean:.2f}", score(macro_f1),
            peak, f"{first['parameters']['bytes'] / 1e3:,.0f}", seconds,
        ])  # fmt: skip
    head = [
        "setting", "seeds", "learning rate", "parameters trained", "without the head", "validation accuracy", *SCORES[:1],
        _without(rows), *SCORES[1:], "peak MB", "kB saved", "CPU seconds",
    ]  # fmt: skip
    used = dict.fromkeys(map(family, names))
    keys = "\n".join(f"- `{f}`: {FAMILIES[f]};" for f in used)
    note = "`r`: rank, `s`: scaling. Peak memory is what a process held above its imports, in training; of seeds on different machines neither it nor seconds are given. The runs in bf16 that show over 1,000 MB are from before batches were padded to multiples of 8 tokens there; the newer ones hold about half as much."
    return f"### Settings\n\n{table(head, lines)}\n\n{keys}\n\n{note}{failed}"


def cost(runs: list[dict]) -> tuple[str, str]:
    """Peak memory in MB and processor seconds, which only runs of one machine can be averaged to."""
    if len(set(map(machine, runs))) > 1:
        return "-", "-"
    peak = mean(run["memory"]["peak"] - run["memory"]["imports"] for run in runs)
    return f"{peak / 1e6:.0f}", f"{mean(run['history']['cpu_seconds'] for run in runs):.0f}"


def missed_table(names: list[str], groups: dict, rows) -> str:
    counts = [int((rows.labels == label).sum()) for label in range(len(rows.label_names))]
    head = ["setting", *(f"{label} ({n})" for label, n in zip(rows.label_names, counts, strict=True))]
    lines = [[f"`{n}`", *(estimate(groups[n], rows, missed(k)) for k in range(len(counts)))] for n in names]
    return f"### Share misidentified, by class\n\nOf the test rows of a class (their number in brackets), those that are called something else.\n\n{table(head, lines)}"


def differences(names: list[str], groups: dict, base: str = "all-linear-r8-s2") -> str:
    """Each setting minus ``base``, on the seeds that both have."""
    lines = []
    for name in names:
        if name == base or base not in groups:
            continue
        found, by_f1 = (compare(groups[name], groups[base], score) for score in (accuracy, macro_f1))
        lines.append([f"`{name}`", found.test.seeds, found.test, found.validation, found.verdict, by_f1.test])
    title = f"### Differences from `{base}`\n\nPaired over rows and seeds, in points of accuracy; the last column in points of macro-F1, on test."
    head = ["setting", "seeds", "test", "validation", "verdict", "macro-F1"]
    return f"{title}\n\n{table(head, lines)}" if lines else f"{title}\n\nNot run yet."


def random_labels(groups: dict) -> str:
    lines = []
    for name in sorted((n for n in groups if n.startswith(f"{RANDOM}-")), key=lambda n: _rank(groups[n][0])):
        runs = groups[name]
        learnt = [100 * run["validation"]["accuracy"] for run in runs]
        lines.append([f"`{name}`", f"{runs[0]['train']['lr']:g}", ", ".join(f"{share:.1f}" for share in learnt)])
    return f"### Labels by chance\n\nThe share of 2,048 such rows that is learnt in 10 epochs, seed by seed.\n\n{table(['setting', 'learning rate', 'learnt'], lines)}"


def rates(folder: str) -> str:
    """What the tune-… runs found: one seed each, on validation, the best in bold."""
    found = {
        name: {rate: None if run["failure"] else 100 * run["validation"]["accuracy"] for rate, run in by_rate.items()}
        for name, by_rate in records.all_tuned(folder).items()
    }
    every = sorted({rate for by_rate in found.values() for rate in by_rate})
    lines = []
    for name, by_rate in found.items():
        best = max(by_rate, key=lambda rate: by_rate[rate] or 0)
        shown = {r: "collapsed" if v is None else f"**{v:.2f}**" if r == best else f"{v:.2f}" for r, v in by_rate.items()}
        lines.append([f"`{name}`", *(shown.get(rate, "") for rate in every)])
    return f"### Learning rates tried\n\nValidation accuracy, seed 0.\n\n{table(['setting', *(f'{rate:g}' for rate in every)], lines)}"


def machine(run: dict) -> str:
    at = run["environment"]
    return f"{at['gpu'] or cpu(at)}, {run['history']['precision']}, {at['threads']} thread(s), torch {at['libraries']['torch']}"


def machines(groups: dict) -> str:
    """What the runs were made on: which settings where, and in one word those of the machine that made most."""
    made = defaultdict(list)
    for name, runs in sorted(groups.items()):
        for kind in sorted(set(map(machine, runs))):
            made[kind].append(f"`{name}`" if len(set(map(machine, runs))) == 1 else f"`{name}` in part")
    most = max(made, key=lambda kind: len(made[kind]), default="nothing yet")
    others = "".join(f" On {kind}: {', '.join(names)}." for kind, names in made.items() if kind != most)
    return f"The settings' runs were made on {most}{', but for these.' if others else '.'}{others} Learning rates were tried on the machine that their records name."
