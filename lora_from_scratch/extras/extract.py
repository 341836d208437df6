"""An adapter out of two checkpoints: the nearest one to what full fine-tuning did."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_from_scratch.config import LoraConfig
from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.nf4 import NF4Linear
from lora_from_scratch.extras.svd import truncated_svd
from lora_from_scratch.extras.wrappers import unwrapped
from lora_from_scratch.inject import add_lora
from lora_from_scratch.registry import Adapted
from lora_from_scratch.slots import injection_of, is_adapted, remove_lora
from lora_from_scratch.targets import find_saved, find_targets, inside


@dataclass(frozen=True)
class Extraction:
    """How much of one weight's change an extracted adapter holds."""

    error: float  # |ΔW - s B A|, Frobenius
    change: float  # |ΔW|
    energy: float  # share of |ΔW|² kept: 1 - error² / change²


@torch.no_grad()
def extract_lora(base: nn.Module, tuned: nn.Module, config: LoraConfig) -> dict[str, Extraction]:
    """Adapt ``base`` so that it comes as near to ``tuned`` as adapters of this rank can.

    Every target gets the top r singular triples of its change ``ΔW``: no matrix of rank
    r is nearer (Eckart and Young). ``config.modules_to_save`` is copied from ``tuned``.
    Whatever else differs between the two models is not carried over and is an error.

    Returns: for each target the error that remains.

    Raises:
        LoraError: the models' names or shapes differ, a tensor that is neither a target
            nor saved has changed (all are named), the config's init or dora asks for a
            start of its own, the base is quantised, or see ``add_lora``. ``base`` is then as it was.
    """
    base, tuned = unwrapped(base), unwrapped(tuned)
    targets = find_targets(base, config)
    if config.variant:
        raise LoraError(f"extract_lora makes plain LoRA, but the config asks for the variant {config.variant!r}")
    if any(isinstance(base.get_submodule(name), NF4Linear) for name in targets):
        raise LoraError("the base is quantised: dequantize_linears first, and extract from floats")
    if is_adapted(tuned):
        raise LoraError("the tuned model has adapters: merge_and_unload(tuned) first")
    saved = find_saved(base, config, targets)
    ours, theirs = base.state_dict(), tuned.state_dict()
    one_sided = ours.keys() ^ theirs.keys()
    odd = sorted(one_sided | {k for k in ours.keys() - one_sided if ours[k].shape != theirs[k].shape})
    if odd:
        raise LoraError(f"base and tuned are not of one shape: {', '.join(odd)}")
    held = {f"{name}.weight" for name in targets} | {k for k in ours if any(inside(k, name) for name in saved)}
    changed = [k for k in ours if k not in held and not torch.equal(ours[k], theirs[k].to(ours[k].device))]
    if changed:
        raise LoraError(f"these tensors changed too, but are neither targets nor saved: {', '.join(changed)}")
    add_lora(base, config)
    adapter = injection_of(base)
    try:
        result = {name: _extract(adapter.layers[name], theirs[f"{name}.weight"]) for name in targets}
    except LoraError:
        remove_lora(base)
        raise
    for name in saved:
        base.get_submodule(name).load_state_dict(tuned.get_submodule(name).state_dict())
    return result


def _extract(layer: Adapted, tuned: Tensor) -> Extraction:
    tuned = tuned.to(layer.weight.device).double()
    matrix = layer.matrix().double()
    delta = (tuned.T if layer.transposed else tuned).reshape(matrix.shape) - matrix
    U, S, V = truncated_svd(delta, layer.r)
    root = (S / layer.scaling).sqrt()
    A, B = layer.factors()
    A.copy_(root[:, None] * V)
    B.copy_(U * root)
    error, change = (matrix + delta - layer.adapted_matrix()).norm().item(), delta.norm().item()
    return Extraction(error, change, 1 - (error / change) ** 2 if change else 1.0)
