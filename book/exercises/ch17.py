"""Chapter 17, many adapters on one base: what its exercises are held against."""

import torch

from exercises.judge import compare, expect, judged, parts, run, run_or_none, tensor, whole


@judged
def break_even(function):
    for base, own in ((22_567_686, 334_086), (100, 60), (100, 50), (100, 90), (100, 99)):
        mine = whole(run(function, base, own), f"break_even({base:,}, {own:,})")
        kept, merged = base + mine * own, mine * base
        expect(kept != merged,
               f"with {mine} adapters of {own} on {base} both take the same; strictly less is asked for")  # fmt: skip
        expect(kept < merged, f"with {mine:,} adapters of {own:,} on {base:,} merging still takes less")
        expect(mine - 1 <= base / (base - own), f"for {base:,} and {own:,} fewer than {mine:,} would do")
    for base, own in ((7, 7), (5, 9)):
        expect(run_or_none(function, base, own) is None, f"an adapter of {own} is no smaller than a base of {base}: return None")
    return "seven pairs, two of them without an answer"


@judged
def by_rows(function):
    torch.manual_seed(1)
    x, W, s = torch.randn(6, 5, 12), torch.randn(9, 12), 0.5
    A, B = torch.randn(4, 3, 12), torch.randn(4, 9, 3)
    plain = x @ W.T
    for pick in (torch.tensor([0, 1, 2, 3, 0, 0]), torch.tensor([3, -1, 0, 3, -1, 1]), torch.tensor([-1] * 6)):
        copies = [t.clone() for t in (x, W, A, B)]
        mine = tensor(run(function, *copies, s, pick.clone()), plain.shape).detach()
        expect(all(map(torch.equal, copies, (x, W, A, B))), "the arguments are changed")
        everywhere = s * x @ A[pick].mT @ B[pick].mT  # -1 is the last adapter here
        added = everywhere * (pick >= 0)[:, None, None]
        compare(mine, plain + added, {
            "the adapters' part is missing": plain,
            "the frozen part is missing": added,
            "s is missing": plain + added / s,
            "s belongs to the adapters' part alone": s * plain + added,
            "-1 picks the last adapter in Python; here it stands for the base": plain + everywhere,
            "every row gets the same adapter": plain + s * x @ A[pick[0]].T @ B[pick[0]].T,
        }, f"other values than row by row, for pick {pick.tolist()}", atol=1e-4)  # fmt: skip
    return "adapters, adapters and base, base alone"


@judged
def weighted_sum(function):
    torch.manual_seed(2)
    adapters = [(torch.randn(r, 9), torch.randn(8, r), s) for r, s in ((2, 2.0), (3, 0.5), (1, 4.0))]
    for count, weights in ((1, [1.5]), (2, [0.5, 0.5]), (3, [0.3, -2.0, 1.5])):
        some = adapters[:count]

        def total(factor, some=some, weights=weights):
            return sum(factor(w, s) * B @ A for w, (A, B, s) in zip(weights, some, strict=True))

        mine = parts(run(function, [(A.clone(), B.clone(), s) for A, B, s in some], list(weights)), "A", "B")
        rank = sum(len(A) for A, _, _ in some)
        A = tensor(mine[0], (rank, 9), "A", "the ranks of the parts add up").detach()
        B = tensor(mine[1], (8, rank), "B", "the ranks of the parts add up").detach()
        compare(B @ A, total(lambda w, s: w * s), {
            "s is missing": total(lambda w, s: w),
            "the weights are missing": total(lambda w, s: s),
            "the weights are in both factors": total(lambda w, s: w * w * s),
            "s is in both factors": total(lambda w, s: w * s * s),
            "w s is in both factors": total(lambda w, s: (w * s) ** 2),
            "a negative weight has lost its sign": total(lambda w, s: abs(w) * s),
        }, f"B A is another matrix, for the weights {weights}", atol=1e-4)  # fmt: skip
    return "one, two and three adapters, of ranks 2, 3 and 1"


@judged
def audit(function):
    torch.manual_seed(3)
    answers = {name: torch.randn(4) for name in "abc"}
    a, b, mix = answers["a"], answers["b"], torch.cat([answers["a"][:2], answers["b"][2:]])
    near = answers["c"] + 1e-6
    named = [("a", a), ("b", b), ("a", mix), ("a", b), ("c", near), ("a", a), ("a", a), ("a", mix), ("b", b)]
    log = [(float(time), name, y.clone()) for time, (name, y) in enumerate(named, 1)]
    mine = parts(run(function, log, dict(answers), {"a": 6.5}), "torn", "gone")
    torn, gone = whole(mine[0], "torn"), whole(mine[1], "gone")
    hints = {
        (3, 2): "one torn answer is missing: one nearly right, one of another adapter and one after a deletion all count",
        (2, 2): "torn answers are missing: nearly right isn't right, and another adapter's isn't either",
        (4, 6): "a deletion later than the request does no harm; compare the times",
        (4, 0): "two requests began after a had been deleted",
        (4, 1): "a torn answer can be named after a deleted adapter, too",
        (4, 4): "you count the requests before the deletion",
        (5, 6): "you count the whole answers, and the requests of every adapter that was ever deleted",
        (5, 2): "those are the whole answers; count the torn ones",
        (2, 4): "torn comes first, then gone",
    }
    expect((torn, gone) == (4, 2), hints.get((torn, gone), f"you count {torn} torn and {gone} gone, which isn't so"))
    return "four are torn, two name an adapter that was gone"
