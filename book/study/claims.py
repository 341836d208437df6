"""The public experiment's claims, each tried on records: a verdict with the figures it rests on."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.extras.report import parameter_report
from lora_from_scratch.finetune.encoders import BACKBONES, encoder_targets
from lora_from_scratch.finetune.methods import choose_trained
from lora_from_scratch.finetune.model import build_classifier

from .statistics import Estimate, RowFacts, estimate, missed, share_of_draws

RANKS, SCALINGS = (1, 4, 8, 16), (1, 2)
SEEDS = 3
REACHED, LITTLE, SURE = 0.925, 0.01, 0.975  # 92.5 % rounds to 93 %; one point; of the draws


@dataclass(frozen=True)
class Verdict:
    """What became of one claim: "holds", "fails" or "undecided", and a line for each figure."""

    claim: str
    verdict: str
    evidence: tuple[str, ...]


def audit_claims(groups: dict[str, list[dict]], rows: RowFacts, split: str = "test") -> list[Verdict]:
    """A verdict on each of the four claims, from runs grouped as the sweep names them.

    A claim whose runs are not all there, three seeds each, is undecided, and says which are missing.
    """
    configurations = [f"attention-r{rank}-s{s}" for rank in RANKS for s in SCALINGS]
    return [
        _audit("93 % accuracy within one epoch at rank 1", ("public-r1", "public-rate-r1", "attention-r1-s2"), groups,
               lambda: _reaches(groups, rows, split)),
        _fewer_parameters(),
        _audit("ranks 1, 4, 8, 16 and scales 1, 2 differ little", configurations, groups,
               lambda: _differ_little(groups, rows, split)),
        _audit("surprise is missed most, love and joy least", configurations, groups,
               lambda: _missed_most([run for name in configurations for run in groups[name]], rows, split)),
    ]  # fmt: skip


def _audit(claim: str, needed, groups: dict, judge: Callable[[], tuple[str, list[str]]]) -> Verdict:
    missing = [f"{n} ({len(groups.get(n, ()))} of {SEEDS} seeds)" for n in needed if len(groups.get(n, ())) < SEEDS]
    if missing:
        return Verdict(claim, "undecided", (f"not run yet: {', '.join(missing)}",))
    verdict, evidence = judge()
    return Verdict(claim, verdict, tuple(evidence))


def _reaches(groups: dict, rows: RowFacts, split: str) -> tuple[str, list[str]]:
    what = {
        "public-r1": "as published, at its rate 1e-4, all but the adapted weights training",
        "public-rate-r1": "the same with the base frozen",
        "attention-r1-s2": "the base frozen, the rate tuned on validation",
    }
    found = {name: estimate(groups[name], rows, split=split) for name in what}
    lines = [f"{what[name]}: {figure} %" for name, figure in found.items()]
    # The claim was made of a frozen base; the recipe may be the better of the two.
    return _above(found["attention-r1-s2"], REACHED), lines


def _above(figure: Estimate, threshold: float) -> str:
    return "holds" if figure.low >= threshold else "fails" if figure.high < threshold else "undecided"


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
    found = {pair: estimate(groups[pair[0]], rows, minus=groups[pair[1]], split=split) for pair in pairs}
    lines = [f"{one} minus {other}: {figure} points" for (one, other), figure in found.items()]
    inside = [-LITTLE <= f.low and f.high <= LITTLE for f in found.values()]
    outside = [f.low > LITTLE or f.high < -LITTLE for f in found.values()]
    return "fails" if any(outside) else "holds" if all(inside) else "undecided", lines


def _missed_most(runs: list[dict], rows: RowFacts, split: str) -> tuple[str, list[str]]:
    names = rows.label_names
    surprise, love, joy = (names.index(name) for name in ("surprise", "love", "joy"))

    def shares(counts: np.ndarray) -> np.ndarray:
        return np.stack([missed(label)(counts) for label in range(len(names))], 1)

    most = share_of_draws(runs, rows, lambda c: shares(c).argmax(1) == surprise, split=split)
    least = share_of_draws(
        runs, rows, lambda c: (np.sort(np.argsort(shares(c), 1)[:, :2], 1) == sorted((love, joy))).all(1), split=split
    )
    lines = [
        f"surprise is the class of which the largest share is missed: in {100 * most:.1f} % of the draws",
        f"love and joy are the two of which the smallest share is missed: in {100 * least:.1f} % of the draws",
    ]
    both = min(most, least)
    return "holds" if both >= SURE else "fails" if both <= 1 - SURE else "undecided", lines
