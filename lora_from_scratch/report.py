"""What trains, and why: an account of every parameter of a model."""

from dataclasses import asdict, dataclass

from torch import nn

from lora_from_scratch.layers import trained_tensors
from lora_from_scratch.slots import Adapters, lora_layers
from lora_from_scratch.targets import head_modules, inside


@dataclass(frozen=True)
class TrainedTensor:
    """One tensor that the optimiser would change."""

    name: str
    shape: tuple[int, ...]
    parameters: int
    reason: str  # "adapter", "head", "saved" or "not frozen"


@dataclass(frozen=True)
class ParameterReport:
    """The account that ``parameter_report`` makes. Counts are of numbers, not of tensors."""

    total: int  # all parameters, adapters included; tied tensors count once
    base: int  # total less the adapters: the model as it was
    adapters: int  # in the factors of the active adapter, trained or not
    head: int  # in the classification head, trained or not
    head_trains: bool
    trained: tuple[TrainedTensor, ...]
    matched: dict[str, int]  # pattern of target_modules -> modules that it took
    adapter_bytes: int  # what the trained tensors take in a file

    @property
    def trainable(self) -> int:
        """How many numbers train, the head included."""
        return sum(tensor.parameters for tensor in self.trained)

    @property
    def trainable_without_head(self) -> int:
        """How many numbers train outside the head."""
        return sum(t.parameters for t in self.trained if t.reason != "head")

    @property
    def unexpected(self) -> tuple[str, ...]:
        """Tensors of an adapted model that train although nothing asked for it."""
        return tuple(t.name for t in self.trained if self.matched and t.reason == "not frozen")

    def as_dict(self) -> dict:
        """The report as plain data, for JSON."""
        totals = {
            "trainable": self.trainable,
            "trainable_without_head": self.trainable_without_head,
            "trainable_share": self.trainable / self.total if self.total else 0.0,
        }
        return asdict(self) | totals

    def __str__(self) -> str:
        lines = [
            f"{self.base:>13,}  parameters of the base model, its head included",
            f"{self.adapters:>13,}  added by adapters",
            f"{self.trainable:>13,}  train ({_share(self.trainable, self.total)} of {self.total:,})",
        ]
        if self.head:
            verb = "trains" if self.head_trains else "is frozen"
            lines.append(f"{self.head:>13,}  in the head, which {verb}")
            lines.append(f"{self.trainable_without_head:>13,}  train outside the head")
        lines.append(f"{self.adapter_bytes:>13,}  bytes for what trains, in a file")
        counts = list(self.matched.items())
        if len(counts) > 12:  # an adapter read from a file names every module in full
            lines.append(f"{len(counts)} targets matched {sum(self.matched.values())} modules")
        else:
            lines += [f"target {pattern!r} matched {n} modules" for pattern, n in counts]
        if self.unexpected:
            lines.append(f"NOT FROZEN, though nothing asked for it: {', '.join(self.unexpected)}")
        lines.append("")
        width = max((len(t.name) for t in self.trained), default=4)
        lines += [
            f"{t.name:<{width}}  {str(list(t.shape)):>13}  {t.parameters:>9,}  {t.reason}"
            for t in self.trained
        ]
        return "\n".join(lines)


def parameter_report(model: nn.Module) -> ParameterReport:
    """Say which tensors of ``model`` train, why, and how many numbers that is.

    Works on any model, adapted or not. Tied parameters count once. A rank-r adapter of
    an [out, in] linear counts r (in + out) numbers, a quantised linear as many weights as
    it stands for. ``print(parameter_report(model))`` shows one line for each tensor that trains.
    """
    adapters = getattr(model, "lora", None)
    injection = None
    if isinstance(adapters, Adapters) and adapters.active is not None:
        injection = adapters.named[adapters.active]
    factors = {id(p) for _, layer in lora_layers(model) for p in trained_tensors(layer).values()}
    heads = head_modules(model)
    saved = injection.saved if injection else ()

    packed = [m for m in model.modules() if hasattr(m, "stands_for")]  # whose weights are bytes, such as NF4Linear
    stands_for = {id(m.weight): m.stands_for for m in packed}

    total = added = head = size = 0
    trained = []
    for name, p in model.named_parameters():  # yields a tied parameter once
        is_factor = id(p) in factors
        is_head = any(inside(name, module) for module in heads)
        total += stands_for.get(id(p), p.numel())
        added += p.numel() * is_factor
        head += stands_for.get(id(p), p.numel()) * is_head
        if p.requires_grad:
            size += p.numel() * p.element_size()
            in_full = any(inside(name, module) for module in saved)
            reason = "adapter" if is_factor else "head" if is_head else "saved" if in_full else "not frozen"
            trained.append(TrainedTensor(name, tuple(p.shape), p.numel(), reason))

    patterns = list(injection.targets.values()) if injection else []
    return ParameterReport(
        total=total,
        base=total - added,
        adapters=added,
        head=head,
        head_trains=any(t.reason == "head" for t in trained),
        trained=tuple(trained),
        matched={pattern: patterns.count(pattern) for pattern in dict.fromkeys(patterns)},
        adapter_bytes=size,
    )


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.3f} %" if whole else "none"
