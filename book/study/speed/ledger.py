"""What a computation does, counted where PyTorch dispatches it."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

NO_WORK = (torch.ops.aten.detach, torch.ops.aten._unsafe_view, torch.ops.aten.unsafe_split, torch.ops.aten.alias)


class Ledger(TorchDispatchMode):
    """Counts the operations that compute something, and the values that they allocate.

    Views do neither. An operation that writes into one of its arguments computes, but
    allocates nothing.
    """

    def __init__(self):
        super().__init__()
        self.operations: list[str] = []
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [*args, *(kwargs := kwargs or {}).values()]  # "out" is among the latter
        before = {t.untyped_storage().data_ptr() for t in given if isinstance(t, torch.Tensor)}
        result = function(*args, **kwargs)
        if isinstance(result, torch.Tensor) and not function.is_view:
            if result.untyped_storage().data_ptr() not in before:
                self.numbers += result.numel()
            if function.overloadpacket not in NO_WORK:
                self.operations.append(str(function.overloadpacket))
        return result
