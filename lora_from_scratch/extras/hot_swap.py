"""Switching, adding and deleting adapters while other threads predict."""

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lora_from_scratch.errors import LoraError
from lora_from_scratch.extras.wrappers import unwrapped
from lora_from_scratch.slots import adapters_of


class SharedLock:
    """A lock that many may share, or one may hold alone.

    Anyone who wants to be alone closes the entrance and waits until the last one inside has left. All
    pass through the same entrance, so neither kind can keep the other out for good.
    """

    def __init__(self):
        self._entrance = threading.Lock()
        self._left = threading.Condition()
        self._inside = 0

    @contextmanager
    def shared(self):
        with self._entrance, self._left:
            self._inside += 1
        try:
            yield
        finally:
            with self._left:
                self._inside -= 1
                self._left.notify_all()

    @contextmanager
    def alone(self):
        with self._entrance:
            with self._left:
                self._left.wait_for(lambda: self._inside == 0)
            yield


class HotSwap:
    """A model with adapters that several threads may use while others switch them.

    To switch adapters is to put other modules in the model's places, one after the other. A forward pass that
    runs meanwhile would take some layers of one adapter and some of the next: its answer is *torn*. Here
    passes share the model and a change has it alone, so that every answer is of the one adapter it is
    returned with, and none is of an adapter whose deletion had returned before the call began.

    None of ``predict``, ``use`` and ``change`` may be called from within another, which would wait for itself: that
    raises a ``LoraError``. All use of the model has to go through this object.

    Raises:
        LoraError: the model has no adapters.
    """

    def __init__(self, model: nn.Module):
        adapters_of(unwrapped(model))
        self.model, self._lock, self._mine = model, SharedLock(), threading.local()

    def predict(self, *args, **kwargs) -> tuple[str | None, Any]:
        """The active adapter's name and what the model returns for these arguments, without gradients."""
        return self.use(self.model, *args, **kwargs)

    def use(self, act: Callable, *args, **kwargs) -> tuple[str | None, Any]:
        """The active adapter's name and what ``act(…)`` returns, which may call the model many times: ``hot.use(model.generate, ids)``.

        No change comes between these calls, so a whole text is of one adapter.
        """
        with self._once(), self._lock.shared(), torch.no_grad():
            return adapters_of(unwrapped(self.model)).active, act(*args, **kwargs)

    def change(self, act: Callable, *args, **kwargs) -> Any:
        """Return ``act(model, …)``, called while no pass runs: ``hot.change(set_adapter, "b")``.

        What ``act`` does is one change, however many steps it takes. Whatever it raises is passed on.
        ``adapter_rows`` changes the model as well, so a batch by rows is predicted in here.
        """
        with self._once(), self._lock.alone():
            return act(self.model, *args, **kwargs)

    @contextmanager
    def _once(self):
        if getattr(self._mine, "busy", False):
            raise LoraError("predict, use and change cannot be called from within one another: they would wait for themselves")
        self._mine.busy = True
        try:
            yield
        finally:
            self._mine.busy = False
