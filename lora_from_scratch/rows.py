"""One adapter for each row of a batch, in one pass through the frozen weights."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lora_from_scratch.adapters import disable_adapter, named_adapter
from lora_from_scratch.config import LoraError
from lora_from_scratch.inject import adapters_of, hand_over
from lora_from_scratch.layers import Adapted, LoRAEmbedding


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
    used = {name: named_adapter(model, name) for name in dict.fromkeys(names) if name is not None}
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
                layers = [other for other in others if isinstance(other, Adapted)]
                if len(layers) not in (0, len(others)):
                    raise LoraError(f"{path!r} is a target of one of these adapters and trains in full in another")
                for other in others:
                    hand_over(module, other)
                if mine:
                    pick = torch.tensor([mine.index(n) if n in mine else -1 for n in names])
                    row_hook = _adapted_rows(path, layers, pick) if layers else _saved_rows(path, others, pick)
                    hooks.append(module.register_forward_hook(row_hook, with_kwargs=True))
            yield model
        finally:
            adapters.by_rows = False
            for hook in hooks:
                hook.remove()


def _adapted_rows(path: str, layers: list[Adapted], pick: Tensor):
    """A forward hook that adds to each row its own adapter's part."""
    factors = [(A, B * layer.scaling) for layer in layers for A, B in [layer.factors()]]
    r = max(A.shape[0] for A, _ in factors)
    A = torch.stack([F.pad(A, (0, 0, 0, r - A.shape[0])) for A, _ in factors])  # [adapters, r, in]
    B = torch.stack([F.pad(B, (0, r - B.shape[1])) for _, B in factors])  # [adapters, out, r]

    def hook(module, args, kwargs, y):
        x, rows = _rows(path, args, kwargs, pick)
        own_A, own_B = A.to(x.device)[rows], B.to(x.device)[rows]  # row -1 is masked below
        if isinstance(layers[0], LoRAEmbedding):
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
