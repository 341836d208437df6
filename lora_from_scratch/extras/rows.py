"""One adapter for each row of a batch, in one pass through the frozen weights."""

import functools
import sys
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils.hooks import RemovableHandle

from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.row_trial import Trial
from lora_from_scratch.functional import autocast_type
from lora_from_scratch.layers import LoRALinear
from lora_from_scratch.registry import Adapted
from lora_from_scratch.slots import adapters_of, disable_adapter, hand_over, named_adapter


@contextmanager
def adapter_rows(model: nn.Module, names: list[str | None]):
    """Within the block, row i of every batch goes through the adapter ``names[i]``; None is the base.

    All rows share one pass through the frozen weights. To row i with adapter k a target
    adds ``s_k B_k A_k x_i``. The rows' factors are stacked once, at the start of the block, as
    A [rows, r, in] and B [rows, out, r] (ranks padded with zeros); a target then costs two batched
    products, of which the second adds into the frozen layer's output, without gradients in place. A head of an
    adapter's own is applied row by row in one vectorised call. Rows of the base are the
    base's, bit for bit. No dropout. (As in S-LoRA, arXiv:2311.03285, and Punica, arXiv:2310.18547.)

    Row i is entry i of the first dimension of what the model is called with. Every module concerned must get the
    batch first and its rows apart: that is shown by two short passes of the base on a few rows (``Trial``),
    once for each module of a model and only if the rows' adapters differ; hooks of yours see those passes, too. Layouts with the time first, experts that are
    handed some of the tokens, rows in another order and a head that the model uses without calling it are refused.

    A language model may write within the block: ``generate`` keeps its rows apart, with any of its caches. Beam search and
    ``num_return_sequences`` make several rows of one, so an adapter is named as often, one after another. If a prompt has
    but one token, the two short passes come before every token.

    Factors that change within the block are not seen before the next one. The model is changed
    meanwhile, so no other thread may use it: see ``HotSwap``.

    Raises:
        LoraError: an adapter does not exist, is DoRA or merged; a module is a target of one
            adapter and trains in full in another; this is inside another ``adapter_rows``;
            or, on the forward pass, the batch has not as many rows as ``names``.
    """
    adapters = adapters_of(model)
    if not isinstance(names, (list, tuple)) or not names:
        raise LoraError(f"names must be a list with one adapter (or None) for each row, got {names!r}")
    used = {name: named_adapter(model, name) for name in dict.fromkeys(names) if name is not None}
    for name, injection in used.items():
        for path, layer in injection.layers.items():
            if not layer.is_product or narrowed.dispatch(type(layer)) is narrowed.dispatch(object):
                raise LoraError(f"{path!r} of adapter {name!r} is a {type(layer).__name__}, which cannot go row by row")
    hooks: list[RemovableHandle] = []
    with disable_adapter(model), _uncompiled():
        adapters.by_rows = True
        try:
            # A wrapper, torch.compile's for one, passes attributes on: the hooks belong to the model itself.
            root = next(module for module in model.modules() if "lora" in vars(module))
            concerned = {p: m for p, m in adapters.base.items() if any(p in injection.modules for injection in used.values())}
            saved = [p for p in concerned if any(p in i.modules and not isinstance(i.modules[p], Adapted) for i in used.values())]
            trial = Trial(root, concerned, saved, len(names), alike=len(set(names)) == 1)
            for path, module in concerned.items():
                others: dict[str | None, nn.Module] = {n: i.modules[path] for n, i in used.items() if path in i.modules}
                kinds = {isinstance(other, Adapted) for other in others.values()}
                if len(kinds) > 1:
                    raise LoraError(f"{path!r} is a target of one of these adapters and trains in full in another")
                row_hook = _saved_rows if path in saved else _adapted_rows
                hook = _fed(row_hook(module, [others.get(n) for n in names]), path, trial)
                hooks.append(module.register_forward_hook(hook, with_kwargs=True))
            hooks += trial.hooks()
            yield model
        finally:
            adapters.by_rows = False
            for hook in hooks:
                hook.remove()


def _fed(hook, path: str, trial: Trial):
    """A module's forward hook, from what ``hook(module, x, y)`` makes of its checked input and its output."""

    def fed(module, args, kwargs, y):
        x = trial.input(path, args, kwargs)
        return None if x is None else hook(module, x, y)

    return fed


def _uncompiled():
    """Compiled code does not look whether a module has hooks: it would give the base's answers, or those of other rows."""
    # Once made, it holds: hence within ``with``, after all that may be refused.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _adapted_rows(module: Any, layers: list[Any]):
    """A hook that adds to each row the part of its own adapted layer; None adds nothing."""
    rows = [i for i, layer in enumerate(layers) if layer is not None]
    adapted = [layer for layer in layers if layer is not None]
    A, B, scaling = _stacked(module.weight, adapted)
    if not isinstance(adapted[0], LoRALinear):  # of which nothing is needed besides
        hand_over(module, adapted[0])
    narrow = narrowed.dispatch(type(adapted[0]))

    def hook(module, x, y):
        every = len(rows) == len(layers)
        x = x if every else x[rows]
        out = y.reshape(len(y), -1, B.shape[1])  # [rows, tokens, out]
        h = narrow(adapted[0], x, A, scaling)
        if every and h.dtype == B.dtype == y.dtype:
            grad, outer = torch.is_grad_enabled(), B.shape[2] == 1  # rank 1: a CPU adds an outer product up to seven times as fast
            add = (out.addcmul if grad else out.addcmul_) if outer else (out.baddbmm if grad else out.baddbmm_)
            return add(h, B.transpose(1, 2)).view(y.shape)
        update = torch.bmm(h, B.transpose(1, 2)).to(y.dtype)
        return out.index_add(0, torch.tensor(rows, device=y.device), update).view(y.shape)

    return hook


@functools.singledispatch
def narrowed(layer: Adapted, x: Tensor, A: Tensor, scaling: Tensor) -> Tensor:
    """``s A x`` [rows, tokens, r], each row x with its own A of A [rows, r, in].

    A base type registers its own way in its own file; without one it cannot go row by row.
    """
    raise NotImplementedError


@narrowed.register
def _(layer: LoRALinear, x: Tensor, A: Tensor, scaling: Tensor) -> Tensor:
    # A x^T, because a product with r as its first side is the faster one
    flat = x.reshape(len(x), -1, A.shape[2]).to(A.dtype)
    return (torch.bmm(A, flat.transpose(1, 2)) * scaling).transpose(1, 2)


def _stacked(weight: Tensor, layers: list[Adapted]) -> tuple[Tensor, Tensor, Tensor]:
    """The layers' A [n, r, in], B [n, out, r] and scaling [n, 1, 1], where ``weight`` is and in the type it computes in."""
    known = {layer: _factors(layer) for layer in dict.fromkeys(layers)}
    kinds = {(A.device, A.dtype, A.shape[0]) for A, _ in known.values()}
    device, r = weight.device, max(rank for _, _, rank in kinds)
    dtype = functools.reduce(torch.promote_types, {own for _, own, _ in kinds}, weight.dtype)
    if dtype == torch.float32:
        dtype = autocast_type(weight) or dtype
    factors = [known[layer] for layer in layers]
    if len(kinds) > 1 or device not in {own for own, _, _ in kinds}:
        factors = [(A.to(device), B.to(device)) for A, B in factors]
        factors = [(F.pad(A, (0, 0, 0, r - len(A))), F.pad(B, (0, r - len(A)))) for A, B in factors]
    A, B = torch.stack([A for A, _ in factors]).to(dtype), torch.stack([B for _, B in factors]).to(dtype)
    return A, B, torch.tensor([layer.scaling for layer in layers], dtype=dtype, device=device)[:, None, None]


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    """``layer.factors()``; of plain LoRA without nn.Module's search for names, which took longer than stacking."""
    if type(layer).factors is LoRALinear.factors:
        A, B = (layer._modules[name]._parameters.get("weight") for name in ("lora_A", "lora_B"))
        if A is not None and B is not None:  # else they are parametrised
            return A, B
    return layer.factors()


def _saved_rows(module: nn.Module, copies: list[Any]):
    """A hook that gives each row the output of its own adapter's copy of a module."""
    rows = [i for i, one in enumerate(copies) if one is not None]
    for one in dict.fromkeys(copies[i] for i in rows):
        hand_over(module, one)
    states = [copies[i].state_dict(keep_vars=True) for i in rows]
    own = {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def call(state, row):
        return functional_call(copies[rows[0]], state, (row[None],))[0]

    def hook(module, x, y):
        made = vmap(call, randomness="different")(own, x[rows])
        return y.index_copy(0, torch.tensor(rows, device=y.device), made.to(y.dtype))

    return hook
