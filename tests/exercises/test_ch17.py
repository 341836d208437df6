import pytest
import torch

from exercises import ch17
from tests.exercises.verdicts import accepts, tells_apart, told


def nothing(*answers):
    return None


def break_even(base, own):
    return None if own >= base else base // (base - own) + 1


def test_break_even():
    assert "nothing returns None" in told(ch17.break_even, nothing)
    accepts(ch17.break_even, break_even)
    tells_apart(ch17.break_even, {
        "return None": (lambda base, own: break_even(base, own) or 1,),
        "stops with ZeroDivisionError": (lambda base, own: base // (base - own) + 1,),
        "strictly less": (lambda base, own: None if own >= base else -(-base // (base - own)),),
        "merging still takes less": (lambda base, own: 1,),
        "fewer than 1,000 would do": (lambda base, own: 1000,),
        "not a whole number": (lambda base, own: base / (base - own),),
    })  # fmt: skip


def by_rows(x, W, A, B, s, pick):
    added = s * torch.bmm(torch.bmm(x, A[pick].mT), B[pick].mT)
    return x @ W.T + added * (pick >= 0)[:, None, None]


def test_by_rows():
    def of(how):
        return (lambda x, W, A, B, s, pick: how(x @ W.T, by_rows(x, 0 * W, A, B, s, pick), s),)

    def in_place(x, *given):
        right = by_rows(x, *given)
        x += 1
        return right

    assert "nothing returns None" in told(ch17.by_rows, nothing)
    accepts(ch17.by_rows, by_rows)
    tells_apart(ch17.by_rows, {
        "the adapters' part is missing": of(lambda plain, added, s: plain),
        "the frozen part is missing": of(lambda plain, added, s: added),
        "s is missing": of(lambda plain, added, s: plain + added / s),
        "s belongs to": of(lambda plain, added, s: s * plain + added),
        "-1 picks the last": (lambda x, W, A, B, s, pick: x @ W.T + s * x @ A[pick].mT @ B[pick].mT,),
        "every row gets the same": (lambda x, W, A, B, s, pick: x @ W.T + s * x @ A[pick[0]].T @ B[pick[0]].T,),
        "other values": of(lambda plain, added, s: plain - added),
        "is [6, 45]": of(lambda plain, added, s: plain.flatten(1)),
        "the arguments are changed": (in_place,),
    })  # fmt: skip


def weighted_sum(parts, weights, to_A=lambda w, s: 1, to_B=lambda w, s: w * s):
    A = torch.cat([to_A(w, s) * A for w, (A, _, s) in zip(weights, parts, strict=True)])
    return A, torch.cat([to_B(w, s) * B for w, (_, B, s) in zip(weights, parts, strict=True)], dim=1)


def test_weighted_sum():
    def of(to_A, to_B):
        return (lambda parts, weights: weighted_sum(parts, weights, to_A, to_B),)

    assert "A is None" in told(ch17.weighted_sum, lambda parts, weights: (None, None))
    accepts(ch17.weighted_sum, weighted_sum)
    accepts(ch17.weighted_sum, *of(lambda w, s: s, lambda w, s: w))
    tells_apart(ch17.weighted_sum, {
        "return 2 things: A, B": (lambda parts, weights: weighted_sum(parts, weights)[0],),
        "the ranks of the parts add up": (lambda parts, weights: (parts[0][0], weights[0] * parts[0][2] * parts[0][1]),),
        "A is [9, 2]": (lambda parts, weights: [t.T for t in weighted_sum(parts, weights)],),
        ": s is missing": of(lambda w, s: 1, lambda w, s: w),
        "the weights are missing": of(lambda w, s: 1, lambda w, s: s),
        "the weights are in both": of(lambda w, s: w, lambda w, s: w * s),
        ": s is in both": of(lambda w, s: s, lambda w, s: w * s),
        "w s is in both": of(lambda w, s: w * s, lambda w, s: w * s),
        "lost its sign": of(lambda w, s: 1, lambda w, s: abs(w) * s),
        "another matrix": of(lambda w, s: 1, lambda w, s: 0),
    })  # fmt: skip


def audit(log, answers, deleted, *, same=torch.equal, late=lambda asked, name, deleted: asked > deleted.get(name, float("inf"))):
    return sum(not same(y, answers[name]) for _, name, y in log), sum(late(asked, name, deleted) for asked, name, _ in log)


def test_audit():
    def with_late(late):
        return (lambda *given: audit(*given, late=late),)

    assert "torn is None" in told(ch17.audit, lambda *given: (None, None))
    accepts(ch17.audit, audit)
    tells_apart(ch17.audit, {
        "return 2 things: torn, gone": (lambda *given: audit(*given)[0],),
        "one torn answer is missing": (lambda *given: audit(*given, same=torch.allclose),),
        "torn answers are missing": (lambda *given: (2, 2),),
        "does no harm": with_late(lambda asked, name, deleted: name in deleted),
        "two requests began": with_late(lambda asked, name, deleted: name not in "abc"),
        "a torn answer can be named": (lambda *given: (4, 1),),
        "before the deletion": with_late(lambda asked, name, deleted: asked < deleted.get(name, 0)),
        "and the requests of every adapter": (lambda log, *given: (len(log) - audit(log, *given)[0], 6),),
        "count the torn ones": (lambda log, *given: (len(log) - audit(log, *given)[0], 2),),
        "torn comes first": (lambda *given: audit(*given)[::-1],),
        "you count 9 torn": (lambda log, *given: (len(log), 0),),
    })  # fmt: skip


@pytest.mark.parametrize("check", [ch17.break_even, ch17.by_rows, ch17.weighted_sum, ch17.audit])
def test_a_function_that_stops_is_told_so(check):
    assert "stops with TypeError" in told(check, lambda: None)
