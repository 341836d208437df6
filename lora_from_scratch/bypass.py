"""Which modules read a child's weight past its ``forward``, so that an adapter in its place would never run."""

import dis
import functools
import inspect

from torch import nn

# These do so in some paths: with all their linear layers, or with the one that is named.
BYPASSES = ("MultiheadAttention", "TransformerEncoderLayer", "FalconMambaMixer.dt_proj", "JambaMambaMixer.dt_proj")


def bypasser(name: str, modules: dict[str, nn.Module]) -> str:
    """The class of the module around ``name`` that would ignore an adapter there; "" if none would."""
    parts = name.split(".")
    kinds: list[type] = [type(modules[".".join(parts[:k])]) for k in range(len(parts))]  # from the model to the parent
    for kind in kinds:
        if any(base.__name__ in BYPASSES or f"{base.__name__}.{parts[-1]}" in BYPASSES for base in kind.__mro__):
            return kind.__name__
    return kinds[-1].__name__ if reads_past(kinds[-1], parts[-1]) else ""


@functools.cache
def reads_past(kind: type, child: str) -> bool:
    """Whether the code of ``kind`` reads ``self.child.weight`` in a forward pass and never uses the child otherwise.

    Mamba's ``dt_proj`` is such a child. Of a class that does both this says nothing: whether
    the adapter runs then depends on the path that is taken.
    """
    methods: dict[str, list] = {}
    for base in kind.__mro__:
        for name, member in vars(base).items():
            if inspect.isfunction(member) and inspect.isfunction(inner := inspect.unwrap(member)):
                methods.setdefault(name, []).extend(_with_inner(inner.__code__))
    run, reads = ["forward"], False  # by a forward pass: the methods that it names, and those that these name
    for name in run:
        run += {n for code in methods.get(name, []) for n in code.co_names if n in methods} - set(run)
    for name, code in ((n, code) for n, codes in methods.items() for code in codes if child in code.co_names):
        loaded = [step.argval if step.opname in ("LOAD_ATTR", "LOAD_METHOD") else "" for step in dis.get_instructions(code)]
        then = [of_it for attribute, of_it in zip(loaded, [*loaded[1:], ""], strict=True) if attribute == child]
        if set(then) - {"weight", "bias"}:
            return False
        reads |= "weight" in then and name in run
    return reads


def _with_inner(code) -> list:
    """A function's code, and that of the functions and comprehensions in it."""
    return [code, *(c for inner in code.co_consts if inspect.iscode(inner) for c in _with_inner(inner))]
