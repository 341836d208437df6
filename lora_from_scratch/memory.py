"""Which tensors share memory: tied weights, however they were tied."""

from torch import Tensor, nn

Span = tuple[object, int, int]


def span(tensor: Tensor) -> Span:
    """Which device's memory ``tensor`` reads, from which byte to which; if it has none (meta, empty), the tensor itself."""
    try:
        start = tensor.data_ptr() if tensor.numel() else 0
    except RuntimeError:  # a DTensor, or another that only stands for tensors
        start = 0
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.device, start, start + (last + 1) * tensor.element_size()) if start else (id(tensor), 0, 1)


def spans_in(model: nn.Module) -> list[Span]:
    """Those of all parameters and buffers, each once for every module that has it."""
    return [span(t) for m in model.modules() for t in [*m._parameters.values(), *m._buffers.values()] if t is not None]


def readers(tensor: Tensor, spans: list[Span]) -> int:
    """How many of the ``spans`` overlap with that of ``tensor``."""
    where, start, end = span(tensor)
    return sum(where == other and start < b and a < end for other, a, b in spans)
