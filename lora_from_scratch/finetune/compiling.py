"""The blocks of a base as compiled programs, while it trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.finetune.weights import first_line


@contextmanager
def compiled_blocks(base: nn.Module, on: bool) -> Iterator[None]:
    """Within it, if ``on``, each block of ``base`` runs as a program that ``torch.compile`` writes when it is first called.

    All blocks share one program, so compiling takes as long as for a single block: up to a minute on a CPU, and about
    half of that from the second run on, since PyTorch keeps what it compiled. Names and tensors of the model stay what
    they are. Outside of training, call the model within ``uncompiled``: another mode would be compiled anew.

    Raises:
        LoraError: ``base`` has no list of equal blocks; or, within it, a block can't be compiled.
    """
    if not on:
        yield
        return
    blocks = _blocks(base)
    for block in blocks:
        block.compile(dynamic=True)
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException  # importing it takes a second

        if isinstance(error, TorchDynamoException):
            raise LoraError(f"a block of the base can't be compiled, so train without compile: {first_line(error)}") from error
        raise
    finally:
        for block in blocks:
            del block._compiled_call_impl  # nn.Module.compile has no public opposite


def uncompiled():
    """A context in which nothing that was compiled runs: each module computes as it is written."""
    return torch.compiler.set_stance("force_eager")


def _blocks(base: nn.Module) -> nn.ModuleList:
    lists = [m for m in base.modules() if isinstance(m, nn.ModuleList) and len({type(block) for block in m}) == 1]
    if not lists:
        raise LoraError(f"compile needs a base with a list of equal blocks, and {type(base).__name__} has none")
    return max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()))
