"""Chapter 9's checks: the stub is told what is missing, the solution passes, wrong answers get hints of their own."""

from statistics import mean

import torch

from exercises import ch09
from study import records
from study.verdicts import compare
from tests.exercises.verdicts import accepts, tells_apart


def stub(*_):
    return None


def test_first_step():
    torch.manual_seed(0)
    G = torch.randn(30, 7).double() @ torch.randn(7, 30).double()

    def sgd(G, lr):
        return -lr * G

    def adam(G, lr, eps):
        return -lr * G / (G.abs() + eps)

    accepts(ch09.first_step, sgd, adam, G)
    tells_apart(ch09.first_step, {
        "stub returns None": (stub, stub, G),
        "sgd: the sign": (lambda G, lr: lr * G, adam, G),
        "sgd: multiply by the learning rate": (lambda G, lr: -G, adam, G),
        "sgd's answer is float": (lambda G, lr: lr, adam, G),
        "stops with TypeError": (sgd, lambda G: G, G),
        "adam: the sign: ": (sgd, lambda G, lr, eps: -adam(G, lr, eps), G),
        "adam: multiply by the learning rate": (sgd, lambda G, lr, eps: adam(G, 1, eps), G),
        "dividing by 1 - beta": (sgd, lambda G, lr, eps: -lr * 0.1 * G / ((0.001 * G * G).sqrt() + eps), G),
        "the root of the mean square": (sgd, lambda G, lr, eps: -lr * G / (G * G + eps), G),
        "outside the root": (sgd, lambda G, lr, eps: -lr * G / (G * G + eps).sqrt(), G),
        "forgets epsilon": (sgd, lambda G, lr, eps: -lr * G.sign(), G),
        "SGD's step": (sgd, lambda G, lr, eps: sgd(G, lr), G),
        "largest entry": (sgd, lambda G, lr, eps: 2 * adam(G, lr, eps), G),
    })  # fmt: skip


def for_gain(kept, top, share):
    wanted = kept[0] + share * (top - kept[0])
    return next((k for k, accuracy in sorted(kept.items()) if accuracy >= wanted), None)


def test_nine_tenths():
    def plain_gain(kept, top, share):
        return next((k for k, accuracy in kept.items() if accuracy >= share * top), None)

    record = {"validation": {"accuracy": 0.9},
              "spectra": {"kept": {"0": 0.5, "4": 0.9}, "singular_values": {"a": [3.0, 1.0], "b": [2.0, 2.0]}}}  # fmt: skip
    accepts(ch09.nine_tenths, for_gain, record, len)
    tells_apart(ch09.nine_tenths, {
        "returns None, though": (stub, record, len),
        "not a share of the gain": (plain_gain, record, len),
        "gives 8: expected 4": (lambda kept, top, share: max(kept), record, len),
        "gives 0: expected 4": (lambda kept, top, share: 0, record, len),
        "stops with TypeError": (lambda kept, top: 4, record, len),
    })  # fmt: skip


def common(D1, D2, k):
    U1, U2 = (torch.linalg.svd(D, full_matrices=False).U[:, :k] for D in (D1, D2))
    return (U1.T @ U2).square().sum() / k


def test_agreement():
    def left(D, k):
        return torch.linalg.svd(D, full_matrices=False).U[:, :k]

    def right(D1, D2, k):
        V1, V2 = (torch.linalg.svd(D).Vh[:k] for D in (D1, D2))
        return (V1 @ V2.T).square().sum() / k

    def one_by_one(D1, D2, k):
        return (left(D1, k) * left(D2, k)).sum(0).square().mean()

    def signed(D1, D2, k):
        return 0.5 + (left(D1, k) * left(D2, k)).sum(0).mean() / 2

    accepts(ch09.agreement, common, 8 / 384)
    tells_apart(ch09.agreement, {
        "stub returns None": (stub, None),
        "not a number": (lambda D1, D2, k: "all", None),
        "divide by k": (lambda D1, D2, k: k * common(D1, D2, k), None),
        "square the norm": (lambda D1, D2, k: common(D1, D2, k).sqrt(), None),
        "left vectors": (right, None),
        "compare spans": (one_by_one, None),
        "chance is None": (common, None),
        "k chances in 384": (common, 8 / 48),
        "chance isn't 0.05": (common, 0.05),
    })  # fmt: skip
    tells_apart(ch09.agreement, {
        "for an update and itself": (lambda D1, D2, k: 0.3, None),
        "no common direction": (lambda D1, D2, k: 1.0, None),
        "compare": (signed, None),
    })  # fmt: skip


def test_verdicts():
    full, adapters = records.read("full"), records.read("all-linear-r1-s1")
    top = [run["validation"]["accuracy"] for run in full]
    kept, dropped = ([run["spectra"][what]["1"] for run in full] for what in ("kept", "dropped"))
    lost, gap = mean(top) - mean(kept), compare(adapters, full)
    most = -gap.test.low
    accepts(ch09.verdicts, lost, gap, most)
    accepts(ch09.verdicts, lost, gap, round(most, 4))  # as printed
    tells_apart(ch09.verdicts, {
        "lost is None": (None, None, None),
        "what is left": (mean(kept), None, None),
        "whole minus cut": (-lost, None, None),
        "not percent": (100 * lost, None, None),
        "seed 0 alone": (top[0] - kept[0], None, None),
        "keep it and drop the others": (mean(top) - mean(dropped), None, None),
        "take the mean over seeds of": (0.2, None, None),
        "gap is None": (lost, None, None),
        "what compare(...) returns": (lost, gap.test, None),
        "adapters minus full": (lost, compare(full, adapters), None),
        "which runs": (lost, compare(records.read("attention-r1-s1"), full), None),
        "most is None": (lost, gap, None),
        "the mean loss": (lost, gap, -gap.test.mean),
        "other end": (lost, gap, -gap.test.high),
        "look at test": (lost, gap, -gap.validation.low),
        "a positive share": (lost, gap, gap.test.low),
        "a share, not percent": (lost, gap, 100 * most),
        "which end": (lost, gap, 0.5),
    })  # fmt: skip
