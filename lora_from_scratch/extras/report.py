"""What trains, and why: an account of every parameter of a model."""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field

from torch import nn

from lora_from_scratch.extras.missed import UNTRAINED, unreached, untrained_heads, without_gradient
from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.memory import span
from lora_from_scratch.places import changed_places
from lora_from_scratch.slots import Adapters, is_merged, lora_layers
from lora_from_scratch.targets import head_modules, inside

MANY = 100  # tensors, more than which nobody reads one by one


@dataclass(frozen=True)
class TrainedTensor:
    """One tensor that the optimiser would change."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    reason: str  # "adapter", "head", "saved" or "not frozen"


@dataclass(frozen=True)
class ParameterReport:
    """The account that ``parameter_report`` makes. Counts are of parameters, not of tensors."""

    total: int  # all parameters, adapters included; tied tensors count once
    base: int  # total less the adapters: the model as it was
    adapters: int  # in the factors of the active adapter, trained or not
    head: int  # in the classification head, trained or not
    head_trains: bool
    trained: tuple[TrainedTensor, ...]
    matched: dict[str, int]  # pattern of target_modules -> modules that it took
    adapter_bytes: int  # what the trained tensors take in a file
    replaced: tuple[str, ...] = ()  # where something else is than the adapters' own modules
    merged: bool = False  # whether the adapters are merged, so that they do not train
    left_out: dict[str, float] = field(default_factory=dict)  # matrices that no adapter reaches -> share of all matrices
    without_gradient: tuple[str, ...] = ()  # that the last backward pass did not reach, though it reached others
    untrained_heads: tuple[str, ...] = ()  # what looks like an untrained head, and does not train in full

    @property
    def trainable(self) -> int:
        """How many parameters train, the head included."""
        return sum(tensor.parameters for tensor in self.trained)

    @property
    def trainable_without_head(self) -> int:
        """How many parameters train outside the head."""
        return sum(t.parameters for t in self.trained if t.reason != "head")

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Tensors of an adapted model that train although nothing asked for it."""
        return tuple(t.name for t in self.trained if self.matched and t.reason == "not frozen")

    @property
    def trainable_share(self) -> float:
        """Which share of all parameters trains."""
        return self.trainable / self.total if self.total else 0.0

    def as_dict(self) -> dict:
        """The report as plain data, for JSON."""
        totals = ("trainable", "trainable_without_head", "trainable_share")
        return asdict(self) | {name: getattr(self, name) for name in totals}

    def __str__(self) -> str:
        verb, share = "trains" if self.head_trains else "is frozen", f"{self.trainable_share:.3%}".replace("%", " %")
        counts = {
            "parameters of the base model, its head included": self.base,
            "added by adapters": self.adapters,
            f"train ({share if self.total else 'none'} of {self.total:,})": self.trainable,
        } | ({f"in the head, which {verb}": self.head, "train outside the head": self.trainable_without_head} if self.head else {})
        lines = [f"{count:>13,}  {what}" for what, count in counts.items()]
        lines.append(f"{self.adapter_bytes:>13,}  bytes for what trains, in a file")
        if len(self.matched) > 12:  # an adapter read from a file names every module in full
            lines.append(f"{len(self.matched)} targets matched {sum(self.matched.values())} modules")
        else:
            lines += [f"target {pattern!r} matched {n} modules" for pattern, n in self.matched.items()]
        if self.unexpected:
            lines.append(f"NOT FROZEN, though nothing asked for it: {', '.join(self.unexpected)}")
        if self.replaced:
            lines.append(f"CHANGED since the adapters were added: {', '.join(self.replaced)}")
        if self.merged:
            lines.append("MERGED: the adapters do not train, unless you call unmerge(model) first")
        if self.left_out:
            shares = ", ".join(f"{name} ({share:.1%})".replace("%", " %") for name, share in self.left_out.items())
            lines.append(f"left out, for no adapter reaches them (share of all matrices): {shares}")
        if self.without_gradient:
            lines.append(f"NO GRADIENT from the last backward pass, so that nothing is learnt there: {', '.join(self.without_gradient)}")
        if self.untrained_heads:
            lines.append(f"{UNTRAINED}: {', '.join(self.untrained_heads)}")
        return "\n".join([*lines, "", *self._table()])

    def _table(self) -> list[str]:
        """A line for each tensor that trains; in a model of many blocks one for all tensors that differ in their block alone."""
        alike: dict[tuple, int] = Counter(
            (t.name if len(self.trained) <= MANY else re.sub(r"\.\d+\.", ".*.", t.name), t.shape, t.parameters, t.reason)
            for t in self.trained
        )
        width = max((len(name) for name, *_ in alike), default=4)
        times = {key: f"{count} x " * (count > 1) for key, count in alike.items()}
        return [
            f"{name:<{width}}  {times[name, shape, n, reason]}{str(list(shape)):>13}  {n:>9,}  {reason}" for name, shape, n, reason in alike
        ]


def parameter_report(model: nn.Module) -> ParameterReport:
    """Say which tensors of ``model`` train, why, and how many parameters that is.

    Works on any model, adapted or not. Tied parameters count once. A rank-r adapter of
    an [out, in] linear layer counts r (in + out) parameters, a quantised one as many weights as
    it stands for. ``print(parameter_report(model))`` shows one line for each tensor that trains, or for each kind of them if
    they are more than a hundred.

    Of an adapted model it remarks on what the adapter misses, if there is anything: matrices
    that ``"all-linear"`` cannot reach, modules that the last backward pass left without a
    gradient (ask before the gradients are cleared), and what looks like an untrained head.
    """
    adapters = getattr(model, "lora", None)
    injection = adapters.named.get(adapters.active or "") if isinstance(adapters, Adapters) else None
    factors = {id(p) for _, layer in lora_layers(model) for p in trained_tensors(layer).values()}
    heads, saved = head_modules(model), injection.saved if injection else ()
    # A module whose weight is bytes, such as NF4Linear, says how many weights they stand for.
    stands_for: dict[int, int] = {id(m.weight): m.stands_for for m in model.modules() if hasattr(m, "stands_for")}  # type: ignore[misc]
    total = added = head = size = 0
    trained = []
    first = {span(p): p for p in reversed(list(model.parameters()))}  # others in the same memory do not count
    for name, p in model.named_parameters():  # yields a tied parameter once
        count, is_factor = stands_for.get(id(p), p.numel()) * (first[span(p)] is p), id(p) in factors
        is_head, in_full = (any(inside(name, module) for module in group) for group in (heads, saved))
        total, added, head = total + count, added + count * is_factor, head + count * is_head
        if p.requires_grad:
            size += p.numel() * p.element_size()
            reason = "adapter" if is_factor else "head" if is_head else "saved" if in_full else "not frozen"
            trained.append(TrainedTensor(name, tuple(p.shape), p.numel(), reason))
    head_trains = any(t.reason == "head" for t in trained)
    matched = dict(Counter(injection.targets.values())) if injection else {}
    missed = (unreached(model), tuple(without_gradient(model)), tuple(untrained_heads(model))) if injection else ()
    changed = tuple(changed_places(model, adapters.in_place(), adapters.shapes)) if isinstance(adapters, Adapters) else ()
    counts = total, total - added, added, head, head_trains
    return ParameterReport(*counts, tuple(trained), matched, size, changed, is_merged(model), *missed)
