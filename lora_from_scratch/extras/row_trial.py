"""Whether a module's input holds one entry for each row of the batch: shown by two short passes, and never assumed."""

import copy
from collections.abc import Iterable
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.hooks import RemovableHandle

from lora_from_scratch.errors import LoraError
from lora_from_scratch.targets import inside

FIRST, SECOND = 6, [1, 2, 3, 4, 5, 0, 2]  # the first pass has this many rows; which of them the second one has
ENTRIES = 1024  # of each row of an input that are compared
SAME = 0.05  # of the difference between rows: what rounding may change in an entry that should be the same
SHOWN: WeakKeyDictionary = WeakKeyDictionary()  # model -> its modules that are known to keep the rows
UNUSED: WeakKeyDictionary = WeakKeyDictionary()  # model -> {kind of call: modules that its trial did not reach}


class Trial:
    """Watches a model's passes inside ``adapter_rows``: is entry i of a module's input all of row i, and nothing else?

    No shape can tell: an input [tokens, rows, width] with as many tokens as rows looks right, and so does what an
    expert gets that is handed as many tokens as there are rows. So before the first pass of a kind the base computes
    two small batches, of six rows c0 ... c5 made of the first two (see ``_six``), and then of the seven c1 ... c5, c0, c2.
    A module keeps the rows if its input has 6 entries and then 7, and if those are these seven of the six. Another
    order, another dimension, rows that mix and tokens picked by what is in them all come out different. What has been
    shown holds for this model from then on, unless its rows had but one position, which shows little. A cache that is already
    filled is copied, with the trial's rows of it.

    Args:
        root: the model, with the base's modules in place. You may also call a part of it, such as its encoder.
        modules: path -> the module of the base that the rows' adapters adapt, or replace.
        saved: those of ``modules`` that are replaced.
        rows: how many the batch has.
        alike: all rows have one adapter, so it does not matter which entry belongs to which.
    """

    def __init__(self, root: nn.Module, modules: dict[str, nn.Module], saved: list[str], rows: int, alike: bool):
        self.root, self.modules, self.saved, self.rows, self.alike = root, modules, saved, rows, alike
        self.shown, self.unused = SHOWN.setdefault(root, WeakSet()), UNUSED.setdefault(root, {})
        self.open = not alike and any(module not in self.shown for module in modules.values())
        self.entry: nn.Module | None = None  # what was called from outside, while it runs
        self.now: set[nn.Module] = set()  # what has been shown for this pass alone
        self.called: set[str] = set()
        self.seen: dict[str, list] | None = None  # path -> its inputs, during a trial
        self.fault = ""

    def hooks(self) -> list[RemovableHandle]:
        """The hooks that tell when a pass begins and ends: on the model, and if there is something to try on its parts."""
        parts = [m for name, m in self.root.named_modules() if self.open and any(inside(p, name) for p in self.modules if p != name)]
        every = dict.fromkeys([self.root, *parts])
        begin = [module.register_forward_pre_hook(self._begin, with_kwargs=True) for module in every]
        return begin + [module.register_forward_hook(self._end, always_call=True) for module in every]

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if self.seen is not None or self.entry is not None:
            return
        inputs = args, kwargs
        sizes = [len(t) for t in tree_leaves(inputs) if isinstance(t, Tensor) and t.ndim]
        if self.rows not in sizes:
            given = f"{sizes[0]} rows" if sizes else "no tensor"
            raise LoraError(f"the model is given {given}, but adapter_rows names {self.rows} adapters{_repeated(sizes[:1], self.rows)}")
        self.entry, self.inputs, self.now = module, inputs, set()
        try:
            if self.open:
                self._try()
        except BaseException:
            self.entry = None  # the hook at the end is not called then
            raise
        self.called = set()

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.seen is not None or module is not self.entry:
            return
        self.entry = None
        for path in self.saved if module is self.root and output is not None else ():  # None: it has failed
            if path not in self.called and self._matters(path):
                raise LoraError(
                    f"{path!r} trains in full, but the model did not call it, though its output depends on it: as a container, or by a "
                    "method other than forward, it cannot go row by row; use set_adapter and a pass for each adapter"
                )

    def input(self, path: str, args: tuple, kwargs: dict) -> Tensor | None:
        """A module's one input, in which entry i is of row i; None during a trial, which computes the base alone."""
        self.called.add(path)
        given = [*args, *kwargs.values()]
        if self.seen is not None:
            self.seen.setdefault(path, []).append(_entries(given[0]))
            return None
        if len(given) != 1:
            raise LoraError(f"{path!r} is called with {len(given)} arguments; row by row it can have but one")
        if given[0].shape[0] != self.rows:
            more = _repeated(given[0].shape[:1], self.rows)
            raise LoraError(f"{path!r} is given {given[0].shape[0]} rows, but adapter_rows names {self.rows} adapters{more}")
        if not self.alike and self.modules[path] not in self.shown and self.modules[path] not in self.now:
            raise LoraError(
                f"{path!r} is given a tensor {list(given[0].shape)}, and a trial on the model's own input has not shown that entry i "
                f"of its first dimension is row i of the batch{self.fault}: row by row, a module must get the batch first and its "
                "rows apart, in a call of the model itself; else use set_adapter and a pass for each adapter"
            )
        return given[0]

    def _try(self) -> None:
        """Find out which modules keep the rows, unless a call of this kind is known not to reach those in doubt."""
        unused = self.unused.setdefault(_kind(self.entry, self.inputs), WeakSet())
        left = {p: m for p, m in self.modules.items() if m not in self.shown and m not in unused}
        if left:
            self.called = set()
            self._compare(left)
            unused.update(m for p, m in left.items() if p not in self.called)

    def _compare(self, left: dict[str, nn.Module]) -> None:
        """Add to ``shown`` those of ``left`` that keep the rows."""
        leaves, _ = tree_flatten(self.inputs)
        batch = [i for i, t in enumerate(leaves) if isinstance(t, Tensor) and t.ndim and len(t) == self.rows]
        # A vector or a mask may by chance be as long as the batch and not be of it.
        for chosen in dict.fromkeys((tuple(batch), tuple(i for i in batch if leaves[i].ndim > 1), tuple(batch[:1]))):
            try:
                first, second = (self._pass(self.entry, chosen, picked) for picked in (range(FIRST), SECOND))
            except Exception as error:  # whatever a model may raise on a batch of another size
                self.fault = (
                    f" (the trial failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]})"
                )
                continue
            # A mask may be longer than what is new, by all that a cache holds, and one with four dimensions has heads second.
            single = [leaves[i].shape[1] == 1 for i in chosen if leaves[i].ndim in (2, 3)]
            short = any(single) if any(map(_selects, leaves)) else all(single)
            kept = [m for p, m in left.items() if _keeps_rows(first[0].get(p, []), second[0].get(p, []))]
            (self.now if short else self.shown).update(kept)
            if len(kept) == len(first[0].keys() & left.keys()):
                return

    def _matters(self, path: str) -> bool:
        """Whether the model's output depends on a module that it did not call."""
        leaves, _ = tree_flatten(self.inputs)
        chosen = [i for i, t in enumerate(leaves) if isinstance(t, Tensor) and t.ndim and len(t) == self.rows]
        state = {f"{path}.{name}": t for name, t in self.modules[path].state_dict().items() if t.is_floating_point()}
        try:
            runs = [self._pass(self.root, chosen, range(FIRST), {n: t + k for n, t in state.items()})[1] for k in (0, 1)]
        except Exception:  # what cannot be shown is refused
            return True
        before, after = ([t for t in tree_leaves(output) if isinstance(t, Tensor)] for output in runs)
        return not before or not all(map(torch.equal, before, after))

    def _pass(self, module, chosen, picked, state: dict[str, Tensor] | None = None) -> tuple[dict[str, list], Any]:
        """What all are given, and the output of ``module``, for the rows ``picked`` of those that a trial is made of."""
        leaves, form = tree_flatten(self.inputs)
        few = [_six(t)[list(picked)] if i in chosen else _apart(t, list(picked)) for i, t in enumerate(leaves)]
        args, kwargs = tree_unflatten(few, form)
        self.seen = {}
        try:
            with torch.no_grad(), _quiet(self.root):
                output = functional_call(module, state or {}, args, kwargs)
            return self.seen, output
        finally:
            self.seen = None


def _six(t: Tensor) -> Tensor:
    """The rows of a trial: two of the batch, the same two backwards, and the same two alike at all positions.

    So it matters where in a row something is; but a router picks all of a row that is alike, or nothing.
    """
    two = t[:2]
    if t.ndim < 2 or not t.shape[1]:
        return torch.cat([two, two, two])
    return torch.cat([two, two.flip(1), two.amax(1, keepdim=True).expand_as(two)])


def _apart(value: Any, picked: list[int]) -> Any:
    """What is not of the batch; of a cache a copy, since the pass would fill it, with the rows of the trial."""
    if isinstance(value, Tensor):
        return value
    value = copy.deepcopy(value)
    if _selects(value) and value.get_seq_length():
        value.batch_select_indices(torch.tensor([i % 2 for i in picked]))  # the rows of ``_six``
    return value


def _selects(value: Any) -> bool:
    return hasattr(value, "batch_select_indices")  # transformers' caches


def _repeated(given: Iterable[int], rows: int) -> str:
    """What to do where ``generate`` has made several rows of each."""
    times = [n // rows for n in given if n > rows and n % rows == 0]
    return f"; with num_beams or num_return_sequences name each adapter {times[0]} times, one after another" if times else ""


def _entries(x: Any) -> tuple[torch.Size, Tensor | None]:
    """The shape of a module's input, and of each entry of its first dimension as many values as it takes to compare it."""
    shape = x.shape
    if not shape.numel():
        return shape, None
    flat = x.detach().reshape(len(x), -1) if shape else x.detach().reshape(1, 1)
    return shape, flat[:, :: flat.shape[1] // ENTRIES | 1].float().nan_to_num()


def _keeps_rows(first: list, second: list) -> bool:
    """Whether a module that was given ``first`` and then ``second`` gets one entry for each row."""
    if not first or len(first) != len(second):
        return False
    for (shape, x), (other, y) in zip(first, second, strict=True):
        if x is None or y is None or (*shape[:1], *other[:1]) != (FIRST, len(SECOND)) or shape[1:] != other[1:]:
            return False
        between = (x - x.roll(1, 0)).abs().max()
        rounding = 16 * torch.finfo(torch.bfloat16 if x.dtype != torch.float32 else x.dtype).eps * x.abs().max()
        if (y - x[SECOND]).abs().max() > SAME * between + rounding:
            return False
    return True


def _kind(entry: nn.Module | None, inputs: tuple[tuple, dict]) -> str:
    """What decides which of its modules a model calls: the part that was called, and the form of its inputs."""
    leaves, form = tree_flatten(inputs)
    said = [
        (t.ndim, t.dtype) if isinstance(t, Tensor) else t if isinstance(t, (str, int, float, type(None))) else type(t)
        for t in leaves
    ]
    return f"{id(entry)} {form} {said}"


@contextmanager
def _quiet(root: nn.Module):
    """In eval mode, and with every random generator afterwards as it was."""
    modes = [(module, module.training) for module in root.modules()]
    devices = sorted({p.device.index for p in root.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        try:
            for module, _ in modes:
                module.training = False
            yield
        finally:
            for module, training in modes:
                module.training = training
