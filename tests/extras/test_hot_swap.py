"""Threads predict while others switch, add and delete adapters."""

import itertools
import sys
import threading
import time
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from lora_from_scratch import (
    HotSwap,
    LoraConfig,
    LoraError,
    adapter_rows,
    add_adapter,
    add_lora,
    delete_adapter,
    set_adapter,
)
from lora_from_scratch.extras.hot_swap import SharedLock

LAYERS, WIDTH = 6, 8
CONFIG = LoraConfig(2, 2, r"\d+", modules_to_save=())
X = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(0))


def stack() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))).eval()


def fill(model: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(torch.randn(p.shape, generator=generator))
    return model


def add(model: nn.Module, name: str, seed: int) -> None:
    fill(add_adapter(model, name, CONFIG), seed)


@torch.no_grad()
def answer(seed: int) -> torch.Tensor:
    """What the adapter with this seed answers when nobody else is about."""
    return fill(add_lora(stack(), CONFIG), seed)(X)


class NoLock:
    """Lets everybody in."""

    @contextmanager
    def shared(self):
        yield

    alone = shared


class LockedChanges(NoLock):
    """Changes are one at a time, but passes do not mind them."""

    def __init__(self):
        self._one = threading.Lock()

    @contextmanager
    def alone(self):
        with self._one:
            yield


def under_load(predictions: int, lock, threads: int = 8) -> dict[str, int]:
    """How many answers were torn, and how many of an adapter deleted before they were asked for."""
    model = fill(add_lora(stack(), CONFIG), 0)
    hot = HotSwap(model)
    hot._lock = lock
    wanted, deleted = {"default": answer(0)}, {}  # name -> its answer; name -> when its deletion had returned
    answers, failures, done = [], [], threading.Event()

    def ask():
        try:
            for _ in range(predictions // threads):
                start = time.perf_counter()
                name, y = hot.predict(X)
                answers.append((start, name, y))
        except Exception as error:
            failures.append(error)

    def switch(own: str):
        """Adds an adapter, which makes it active, goes back and forth, deletes it; and so on with the next name."""
        for number in itertools.count():
            if done.wait(0.02):
                return
            name, seed = f"{own}{number}", 1 + number % len(expected)
            wanted[name] = expected[seed]
            try:
                hot.change(add, name, seed)
                hot.change(set_adapter, "default")
                hot.change(set_adapter, name)
                hot.change(lambda model, name=name: delete_adapter(set_adapter(model, "default"), name))
            except Exception as error:  # without a lock switching fails, too
                failures.append(error)
                continue
            deleted[name] = time.perf_counter()

    expected = {seed: answer(seed) for seed in range(1, 21)}
    workers = [threading.Thread(target=ask) for _ in range(threads)]
    switchers = [threading.Thread(target=switch, args=(own,)) for own in ("a", "b")]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # threads take turns often
    try:
        for thread in [*switchers, *workers]:
            thread.start()
        for thread in workers:
            thread.join()
    finally:
        done.set()
        for thread in switchers:
            thread.join()
        sys.setswitchinterval(before)
    return {
        "answers": len(answers),
        "torn": sum(name not in wanted or not torch.equal(y, wanted[name]) for _, name, y in answers),
        "deleted": sum(start > deleted.get(name, float("inf")) for start, name, _ in answers),
        "adapters": len({name for _, name, _ in answers}),
        "switches": 4 * len(deleted),
        "failures": len(failures),
    }


def test_ten_thousand_answers_under_constant_switching_are_whole_and_of_living_adapters():
    found = under_load(10_000, SharedLock())
    assert found["answers"] == 10_000 and found["failures"] == 0
    assert found["torn"] == 0 and found["deleted"] == 0
    assert found["switches"] > 400 and found["adapters"] > 20, found  # or it was no load


@pytest.mark.parametrize("lock", [NoLock, LockedChanges])
def test_without_the_lock_the_same_load_tears_answers(lock):
    found = under_load(4_000, lock())
    assert found["torn"] > 0, found


@pytest.mark.parametrize("lock", [SharedLock, LockedChanges, NoLock])
def test_a_deletion_waits_for_the_pass_that_uses_the_adapter(lock):
    model = fill(add_lora(stack(), CONFIG), 0)
    add(model, "a", 1)
    hot, guarded = HotSwap(model), lock is SharedLock
    hot._lock = lock()
    half_way, go_on, deleted = (threading.Event() for _ in range(3))
    answers = []

    def pause(module, args):
        half_way.set()
        assert go_on.wait(30)

    for injection in model.lora.named.values():
        injection.modules["3"].register_forward_pre_hook(pause)

    def delete():
        hot.change(lambda model: delete_adapter(set_adapter(model, "default"), "a"))
        deleted.set()

    threads = [threading.Thread(target=lambda: answers.append(hot.predict(X))), threading.Thread(target=delete)]
    threads[0].start()
    assert half_way.wait(30)
    threads[1].start()
    assert deleted.wait(0.3 if guarded else 30) is not guarded  # without the lock: deleted while it answers
    go_on.set()
    for thread in threads:
        thread.join(30)
    (name, y), whole = answers[0], [answer(1), answer(0)]
    assert name == "a" and deleted.is_set()
    assert torch.equal(y, whole[0]) is guarded
    assert guarded or not torch.equal(y, whole[1])  # torn: neither the one nor the other
    assert hot.predict(X)[0] == "default"


def test_those_who_wait_to_be_alone_and_those_who_share_both_get_their_turn():
    lock, log = SharedLock(), []
    def enter(kind):
        for _ in range(200):
            with getattr(lock, kind)():
                log.append(kind)

    threads = [threading.Thread(target=enter, args=(kind,)) for kind in ("shared", "alone") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert log.count("shared") == log.count("alone") == 800


def test_a_change_returns_what_it_made_and_passes_errors_on():
    hot = HotSwap(add_lora(stack(), CONFIG))
    assert hot.change(lambda model: adapters_named(model)) == ["default"]
    with pytest.raises(LoraError, match="there is no adapter 'x'"):
        hot.change(set_adapter, "x")
    with pytest.raises(RuntimeError):
        hot.predict(torch.zeros(2, WIDTH + 1))
    assert not hot.predict(X)[1].requires_grad  # and the lock is free


def test_rows_are_predicted_in_a_change():
    model = fill(add_lora(stack(), CONFIG), 0)
    add(model, "a", 1)

    def by_rows(model):
        with torch.no_grad(), adapter_rows(model, ["a", "default"]):
            return model(X)

    y = HotSwap(model).change(by_rows)
    assert torch.allclose(y, torch.stack([answer(1)[0], answer(0)[1]]), rtol=1e-4, atol=1e-2)


def test_several_passes_are_of_one_adapter():
    """A text takes a pass for each token; a switch that is asked for in the middle comes after the last one."""
    model = fill(add_lora(stack(), CONFIG), 0)
    add(model, "a", 1)
    hot, asked = HotSwap(model), threading.Thread(target=lambda: hot.change(set_adapter, "default"))

    def write(x):
        first = model(x)
        asked.start()
        asked.join(0.2)  # it waits, so this is over before it
        return first, model(x)

    name, answers = hot.use(write, X)
    asked.join()
    assert name == "a" and all(torch.equal(y, answer(1)) and not y.requires_grad for y in answers)
    assert hot.predict(X)[0] == "default"


def test_what_would_wait_for_itself_is_refused():
    hot = HotSwap(add_lora(stack(), CONFIG))
    for act in (lambda model: hot.predict(X), lambda model: hot.use(model, X), lambda model: hot.change(set_adapter, "default")):
        with pytest.raises(LoraError, match="cannot be called from within one another"):
            hot.change(act)
    with pytest.raises(LoraError, match="has no LoRA adapters"):
        HotSwap(stack())
    hot.change(set_adapter, "default")


def adapters_named(model: nn.Module) -> list[str]:
    return list(model.lora.named)
