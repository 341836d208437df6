"""Several adapters on one model: add, switch, switch off, combine, one for each row."""

import math
import re
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lora_from_scratch.config import LoraConfig, LoraError
from lora_from_scratch.functional import lora_delta
from lora_from_scratch.inject import (
    Injection,
    activate,
    adapters_of,
    add_prepared,
    hand_over,
    injection_of,
    install,
    prepare,
)
from lora_from_scratch.layers import Adapted
from lora_from_scratch.svd import truncated_svd
from lora_from_scratch.targets import exactly
from lora_from_scratch.variants import DoRALinear


def add_adapter(model: nn.Module, name: str, config: LoraConfig) -> nn.Module:
    """Add another adapter beside those that ``model`` has, make it the active one, return the model.

    It has factors and a head of its own, and may have other targets, ranks and a variant
    of its own. It is made from the base, not from the adapter that was active.

    Raises:
        LoraError: the model has no adapters yet (``add_lora``), the name is taken or no
            string, they are merged, or see ``add_lora``. The model is then as it was.
    """
    injection_of(model)
    if name in adapters_of(model).named:
        raise LoraError(f"there is an adapter {name!r} already: delete_adapter(model, {name!r}) first")
    with disable_adapter(model):
        add_prepared(model, name, prepare(model, config))
    activate(model, name)
    return model


def set_adapter(model: nn.Module, name: str) -> nn.Module:
    """Make ``name`` the active adapter, the only one that trains. Returns the model.

    An optimiser holds the parameters of the adapter that it was made for: make a new one.

    Raises:
        LoraError: there is no such adapter, or the active one is merged.
    """
    injection_of(model)
    _named(model, name)
    activate(model, name)
    return model


@contextmanager
def disable_adapter(model: nn.Module):
    """Within the block the base model computes, its head included, exactly as before ``add_lora``.

    Raises:
        LoraError: the model has no adapters, they are merged, or this is inside ``adapter_rows``.
    """
    _refuse_by_rows(model)
    before = adapters_of(model).active
    install(model, None)
    try:
        yield model
    finally:
        install(model, before)


def delete_adapter(model: nn.Module, name: str) -> nn.Module:
    """Forget an adapter that is not active. Returns the model.

    Raises:
        LoraError: there is no such adapter, or it is the active one.
    """
    injection_of(model)
    _named(model, name)
    adapters = adapters_of(model)
    if name == adapters.active:
        raise LoraError(f"{name!r} is the active adapter: call set_adapter with another one, or remove_lora, first")
    del adapters.named[name]
    return model


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
    parts = {other: _named(model, other) for other in weights}
    for other, weight in weights.items():
        if not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise LoraError(f"the weight of {other!r} must be a finite number, got {weight!r}")
    if r is not None and (not isinstance(r, int) or r < 1):
        raise LoraError(f"r must be a positive int or None, got {r!r}")
    source = _head_source(parts, head)
    targets = dict.fromkeys(path for part in parts.values() for path in part.targets)
    factors, errors = {}, {}
    for path in targets:
        terms = [(w, p.modules[path]) for (n, w), p in zip(weights.items(), parts.values(), strict=True) if path in p.targets]
        dora = [layer for _, layer in terms if isinstance(layer, DoRALinear)]
        if dora:
            raise LoraError(f"{path!r} is adapted by DoRA: its update is no product that could be added up")
        A = torch.cat([layer.factors()[0].detach() for _, layer in terms])
        B = torch.cat([w * layer.scaling * layer.factors()[1].detach() for w, layer in terms], 1)
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
            for place, value in zip(made.modules[path].factors(), values, strict=True):
                place.copy_(value)
        for path in made.saved:
            made.modules[path].load_state_dict(source.modules[path].state_dict())
    return errors


@contextmanager
def adapter_rows(model: nn.Module, names: list[str | None]):
    """Within the block, row i of every batch goes through the adapter ``names[i]``; None is the base.

    All rows share one pass through the frozen weights. For row i with adapter k a target
    adds ``s_k B_k A_k x_i``, in two batched products over stacked factors (ranks padded
    with zeros), and a head of an adapter's own is applied row by row in one vectorised
    call. Rows of the base are the base's, bit for bit. No dropout. (As in S-LoRA and Punica.)

    Raises:
        LoraError: an adapter does not exist, is DoRA or merged; a module is a target of one
            adapter and trains in full in another; this is inside another ``adapter_rows``;
            or, on the forward pass, the batch has not as many rows as ``names``.
    """
    adapters = adapters_of(model)
    if not isinstance(names, (list, tuple)) or not names:
        raise LoraError(f"names must be a list with one adapter (or None) for each row, got {names!r}")
    used = {name: _named(model, name) for name in dict.fromkeys(names) if name is not None}
    dora = [name for name, injection in used.items() if injection.config.dora]
    if dora:
        raise LoraError(f"adapter {dora[0]!r} is DoRA, which rescales W itself and cannot go row by row")
    hooks = []
    with disable_adapter(model):
        adapters.by_rows = True
        try:
            for path, module in adapters.base.items():
                mine = [n for n in used if path in used[n].modules]
                others = [used[n].modules[path] for n in mine]
                if len({isinstance(other, Adapted) for other in others}) > 1:
                    raise LoraError(f"{path!r} is a target of one of these adapters and trains in full in another")
                for other in others:
                    hand_over(module, other)
                if mine:
                    pick = torch.tensor([mine.index(n) if n in mine else -1 for n in names])
                    row_hook = _adapted_rows if isinstance(others[0], Adapted) else _saved_rows
                    hooks.append(module.register_forward_hook(row_hook(path, others, pick), with_kwargs=True))
            yield model
        finally:
            adapters.by_rows = False
            for hook in hooks:
                hook.remove()


def _refuse_by_rows(model: nn.Module) -> None:
    if adapters_of(model).by_rows:
        raise LoraError("inside adapter_rows neither disable_adapter nor another adapter_rows can begin")


def _named(model: nn.Module, name: str) -> Injection:
    named = adapters_of(model).named
    if not isinstance(name, str) or name not in named:
        raise LoraError(f"there is no adapter {name!r}: there are {', '.join(map(repr, named))}")
    return named[name]


def _head_source(parts: dict[str, Injection], head: str | None) -> Injection | None:
    with_heads = [name for name, part in parts.items() if part.saved]
    if head is None and len(with_heads) > 1:
        raise LoraError(f"{', '.join(map(repr, with_heads))} have heads of their own: say with head= whose to copy")
    if head is not None and head not in with_heads:
        raise LoraError(f"head is {head!r}, which is none of the adapters combined here that have one: {with_heads}")
    return parts[head or with_heads[0]] if with_heads else None


def _adapted_rows(path: str, layers: list[nn.Module], pick: Tensor):
    """A forward hook that adds to each row its own adapter's part."""
    factors = [(A, B * layer.scaling) for layer in layers for A, B in [layer.factors()]]
    r = max(A.shape[0] for A, _ in factors)
    A = torch.stack([F.pad(A, (0, 0, 0, r - A.shape[0])) for A, _ in factors])  # [adapters, r, in]
    B = torch.stack([F.pad(B, (0, r - B.shape[1])) for _, B in factors])  # [adapters, out, r]

    def hook(module, args, kwargs, y):
        x, rows = _rows(path, args, kwargs, pick)
        own_A, own_B = A.to(x.device)[rows], B.to(x.device)[rows]  # row -1 is masked below
        if isinstance(module, nn.Embedding):
            index = torch.arange(len(x), device=x.device).view(-1, *[1] * (x.dim() - 1))
            h = own_A.transpose(1, 2)[index, x] * layers[0].gain()  # the base's, hence the same for all
        else:
            h = torch.einsum("n...i,nri->n...r", x.to(A.dtype), own_A)
        update = torch.einsum("n...r,nor->n...o", h, own_B).to(y.dtype)
        return torch.where(_is_adapted(rows, y), y + update, y)

    return hook


def _saved_rows(path: str, modules: list[nn.Module], pick: Tensor):
    """A forward hook that gives each row the output of its own adapter's copy of a module."""
    states = [module.state_dict(keep_vars=True) for module in modules]
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def call(state, row):
        return functional_call(modules[0], state, (row[None],))[0]

    def hook(module, args, kwargs, y):
        x, rows = _rows(path, args, kwargs, pick)
        own = {name: value.to(x.device)[rows] for name, value in stacked.items()}
        return torch.where(_is_adapted(rows, y), vmap(call, randomness="different")(own, x), y)

    return hook


def _rows(path: str, args: tuple, kwargs: dict, pick: Tensor) -> tuple[Tensor, Tensor]:
    given = [*args, *kwargs.values()]
    if len(given) != 1:
        raise LoraError(f"{path!r} is called with {len(given)} arguments; row by row it can have but one")
    x = given[0]
    if x.shape[0] != len(pick):
        raise LoraError(f"{path!r} is given {x.shape[0]} rows, but adapter_rows names {len(pick)} adapters")
    return x, pick.to(x.device)


def _is_adapted(rows: Tensor, y: Tensor) -> Tensor:
    return (rows >= 0).view(-1, *[1] * (y.dim() - 1))
