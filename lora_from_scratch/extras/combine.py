"""One adapter as the weighted sum of several."""

import re

import torch
from torch import nn

from lora_from_scratch.config import LARGEST, LoraConfig, check_positive_int
from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.svd import truncated_svd
from lora_from_scratch.functional import lora_delta
from lora_from_scratch.inject import add_adapter
from lora_from_scratch.slots import Injection, adapters_of, named_adapter
from lora_from_scratch.targets import exactly


def combine_adapters(
    model: nn.Module,
    name: str,
    weights: dict[str, float],
    *,
    r: int | None = None,
    head: str | None = None,
) -> dict[str, float]:
    """Add an adapter ``name`` whose update is the weighted sum of others', and make it active.

    ``ΔW = Σ w_i s_i B_i A_i``. Without ``r`` exactly so: the factors are concatenated,
    and the ranks add up. With ``r`` each sum is cut to its top r singular triples.
    (Averaging the factors instead would be another matrix: ``Σ B_i`` times ``Σ A_i``
    holds every cross product.)

    Args:
        weights: adapter -> its weight.
        r: rank to cut to; None keeps the sum exact.
        head: the adapter whose head (and other saved modules) the new one copies.

    Returns: for each target what was cut off, ``|ΔW - ΔW_r|`` in the Frobenius norm.

    Raises:
        LoraError: an adapter does not exist or is DoRA, whose update is no product; the
            summed rank exceeds a target's min(in, out); heads differ and ``head`` is not
            given; or see ``add_adapter``. The model is then as it was.
    """
    if not isinstance(weights, dict) or not weights:
        raise LoraError(f"weights is empty or no dict of adapter and weight: {weights!r}")
    parts = {other: named_adapter(model, other) for other in weights}
    for other, weight in weights.items():
        if not isinstance(weight, (int, float)) or not abs(weight) < LARGEST:
            raise LoraError(f"the weight of {other!r} must be a finite number, got {weight!r}")
    if r is not None:
        check_positive_int("r", r)
    source = _head_source(parts, head)
    targets = dict.fromkeys(path for part in parts.values() for path in part.targets)
    factors, errors = {}, {}
    for path in targets:
        terms = [(w, parts[n].layers[path]) for n, w in weights.items() if path in parts[n].targets]
        whole = [layer.variant for _, layer in terms if not layer.is_product]
        if whole:
            raise LoraError(f"{path!r} is of variant {whole[0]!r}, whose update is not a product s B A that could be added up")
        device = next(adapters_of(model).base[path].parameters()).device  # those not in place may have been left behind
        A = torch.cat([layer.factors()[0].detach().to(device) for _, layer in terms])
        B = torch.cat([w * layer.scaling * layer.factors()[1].detach().to(device) for w, layer in terms], 1)
        errors[path] = 0.0
        if r is not None and r < A.shape[0]:
            delta = lora_delta(A, B, 1.0)
            U, S, V = truncated_svd(delta, r)
            errors[path] = (delta - U * S @ V).norm().item()
            A, B = (S.sqrt()[:, None] * V).to(A.dtype), (U * S.sqrt()).to(B.dtype)
        factors[path] = A, B

    ranks = {"^" + re.escape(path): A.shape[0] for path, (A, _) in factors.items()}
    config = LoraConfig(
        r=max(ranks.values()),
        alpha=max(ranks.values()),
        target_modules=exactly(targets),
        rank_pattern=ranks,
        alpha_pattern={path: float(rank) for path, rank in ranks.items()},
        modules_to_save=source.saved if source else (),
    )
    add_adapter(model, name, config)
    made = adapters_of(model).named[name]
    with torch.no_grad():
        for path, values in factors.items():
            for place, value in zip(made.layers[path].factors(), values, strict=True):
                place.copy_(value)
        if source:
            for path in made.saved:
                made.modules[path].load_state_dict(source.modules[path].state_dict())
    return errors


def _head_source(parts: dict[str, Injection], head: str | None) -> Injection | None:
    with_heads = [name for name, part in parts.items() if part.saved]
    if head is None and len(with_heads) > 1:
        raise LoraError(f"{', '.join(map(repr, with_heads))} have heads of their own: say with head= whose to copy")
    if head is not None and head not in with_heads:
        raise LoraError(f"head is {head!r}, which is none of the adapters combined here that have one: {with_heads}")
    return parts[head or with_heads[0]] if with_heads else None
