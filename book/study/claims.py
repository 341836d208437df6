"""The public experiment's claims, each tried on records: a verdict with the figures it rests on.

The experiment is https://github.com/AishwaryaHastak/LoRA-implementation (its README of August 2024). It
trained DistilBERT. Where our runs train another network, a claim is not tested, and the verdict is on ours;
``python -m book.study.runs.sweep --model distilbert`` makes the runs that test it, where a model hub answers.
Only the count of parameters needs no runs, so it is tested on the experiment's own model.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.extras.report import parameter_report
from lora_from_scratch.finetune.encoders import BACKBONES, encoder_targets
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.model import build_classifier

from .statistics import Estimate, RowFacts, Score, estimate, missed, same_seeds
from .verdicts import CANT_TELL, POINT, verdict

RANKS, SCALINGS = (1, 4, 8, 16), (1, 2)
SEEDS = 3  # at least
REACHED = 0.925  # rounds to 93 %
EXPERIMENT = "distilbert"


@dataclass(frozen=True)
class Verdict:
    """What became of one claim on a backbone: "holds", "fails" or "can't tell", and a line for each figure."""

    claim: str
    verdict: str
    evidence: tuple[str, ...]
    backbone: str = EXPERIMENT

    @property
    def says(self) -> str:
        """The verdict, or that the claim was not tested and what another backbone says."""
        if self.backbone == EXPERIMENT:
            return self.verdict
        return f"not tested on {EXPERIMENT}; on {self.backbone}: {self.verdict}"


def at_least(figure: Estimate, threshold: float) -> str:
    """Whether a figure reaches a threshold: "holds" or "fails" if its whole interval says so, else "can't tell"."""
    return "holds" if figure.low >= threshold else "fails" if figure.high < threshold else CANT_TELL


def missed_gap(one: int, other: int) -> Score:
    """By how much the share that is missed is larger for one label than for another; give it ``signed=True``."""
    return lambda counts: missed(one)(counts) - missed(other)(counts)


def audit_claims(
    groups: dict[str, list[dict]], rows: RowFacts, split: str = "test", backbone: str = "minilm"
) -> list[Verdict]:
    """A verdict on each of the four claims, from a backbone's runs grouped as the sweep names them.

    A claim whose runs are not all there, three seeds each, can't be told, and says which are missing.
    """
    configurations = [f"attention-r{rank}-s{s}" for rank in RANKS for s in SCALINGS]
    reaching = ("public-r1", "public-rate-r1", "attention-r1-s2", "all-linear-r1-s2")

    def audit(claim: str, needed, judge: Callable[[], tuple[str, list[str]]]) -> Verdict:
        missing = [f"{n} ({len(groups.get(n, ()))} of {SEEDS} seeds)" for n in needed if len(groups.get(n, ())) < SEEDS]
        found = (CANT_TELL, [f"not run yet: {', '.join(missing)}"]) if missing else judge()
        return Verdict(claim, found[0], tuple(found[1]), backbone)

    return [
        audit("93 % accuracy within one epoch at rank 1", reaching, lambda: _reaches(groups, rows, split)),
        _fewer_parameters(),
        audit("ranks 1, 4, 8, 16 and scales 1, 2 differ little, by about 0.6 %", configurations, lambda: _differ_little(groups, rows, split)),
        audit("surprise is missed most, love and joy least", configurations,
              lambda: _missed_most([groups[name] for name in configurations], rows, split)),
    ]  # fmt: skip


def _reaches(groups: dict, rows: RowFacts, split: str) -> tuple[str, list[str]]:
    what = {
        "public-r1": "as published, at its rate 1e-4, all but the adapted weights training, dropout on",
        "public-rate-r1": "the same with the base frozen",
        "attention-r1-s2": "the base frozen, the rate tuned on validation",
        "all-linear-r1-s2": "the same in all linear layers instead of attention",
    }
    found = {name: estimate(groups[name], rows, split=split) for name in what}
    lines = [f"{name}, {what[name]}: {figure} %, {at_least(figure, REACHED)}" for name, figure in found.items()]
    # The claim was made of a frozen base with adapters in attention; the recipe, which trains more, may be better.
    return at_least(found["attention-r1-s2"], REACHED), lines


def _fewer_parameters() -> Verdict:
    models: dict[str, Callable[[], Any]] = {
        "distilbert with the public code's head": _public_model,
        "distilbert with our head": lambda: build_classifier("distilbert"),
        "minilm with our head": lambda: build_classifier("minilm"),
    }
    methods = {"lora": "base frozen", "lora-unfrozen": "as published, only attention frozen"}
    lines, fewest = [], 1.0
    for (name, build), (method, what) in itertools.product(models.items(), methods.items()):
        model = build()
        encoder = model.backbone if hasattr(model, "backbone") else model.base_model
        with torch.device("meta"):
            choose_trained(model, method, LoraConfig(1, 2, encoder_targets(encoder, "attention")))
        report = parameter_report(model)
        share, bare = report.trainable / report.base, report.trainable_without_head / report.base
        fewest = min(fewest, bare)
        lines.append(
            f"{name}, {what}: {report.trainable:,} of {report.base:,} train, {100 - 100 * share:.3f} % fewer "
            f"({100 - 100 * bare:.3f} % with the head not counted)"
        )
    return Verdict("99.99 % fewer parameters train at rank 1", "fails" if fewest > 1e-4 else "holds", tuple(lines))


def _public_model() -> nn.Module:
    """DistilBERT with the head that transformers gives it, on the meta device."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(**BACKBONES["distilbert"].config, num_labels=6)
    with torch.device("meta"):
        return AutoModelForSequenceClassification.from_config(config)


def _differ_little(groups: dict, rows: RowFacts, split: str) -> tuple[str, list[str]]:
    pairs = [(f"attention-r{r}-s{s}", f"attention-r1-s{s}") for s in SCALINGS for r in RANKS[1:]]
    pairs += [(f"attention-r{r}-s2", f"attention-r{r}-s1") for r in RANKS]
    found = {}
    for pair in pairs:
        one, other = same_seeds([groups[name] for name in pair])
        found[pair] = estimate(one, rows, minus=other, split=split)
    lines = [f"{one} minus {other}: {figure} points, {verdict(figure)}" for (one, other), figure in found.items()]
    inside = [-POINT <= f.low and f.high <= POINT for f in found.values()]
    outside = [f.low > POINT or f.high < -POINT for f in found.values()]
    return "fails" if any(outside) else "holds" if all(inside) else CANT_TELL, lines


def _missed_most(settings: list[list[dict]], rows: RowFacts, split: str) -> tuple[str, list[str]]:
    """Surprise against each other class, and each of love and joy against each of the rest; on the mean of all settings."""
    names, settings = rows.label_names, same_seeds(settings)
    surprise, least = names.index("surprise"), [names.index(name) for name in ("love", "joy")]
    rest = [label for label in range(len(names)) if label != surprise and label not in least]
    pairs = [(surprise, other) for other in range(len(names)) if other != surprise]
    pairs += [(other, low) for low in least for other in rest]
    lines, found = [], set()
    for more, fewer in pairs:
        gap = estimate(settings, rows, missed_gap(more, fewer), split=split, signed=True)
        lines.append(f"more of {names[more]} than of {names[fewer]}, by {gap} points: {at_least(gap, 0)}")
        found.add(at_least(gap, 0))
    return "fails" if "fails" in found else CANT_TELL if CANT_TELL in found else "holds", lines
