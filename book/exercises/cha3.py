"""Appendix A3, public claims: what its exercises are held against."""

from exercises.judge import compare, expect, judged, one_of, run, whole
from study import records
from study.statistics import Estimate, estimate
from study.verdicts import CANT_TELL

HOLDS, FAILS = "holds", "fails"
KINDS = ("LoRA", "LoRA with the rest unfrozen", "full fine-tuning", "something else")


@judged
def third_answer(function):
    for mean, low, high, right, why in (
        (0.94, 0.93, 0.95, HOLDS, "the whole interval is above the claim"),
        (0.90, 0.89, 0.91, FAILS, "the whole interval is below the claim"),
        (0.93, 0.92, 0.94, CANT_TELL, "the mean is above the claim, but the interval isn't"),
        (0.92, 0.91, 0.93, CANT_TELL, "the mean is below the claim, but the interval reaches it"),
        (0.935, 0.925, 0.945, HOLDS, "the lower end is exactly the claim, and that reaches it"),
        (0.915, 0.905, 0.925, CANT_TELL, "the upper end is exactly the claim, so not all of it is below"),
    ):
        mine = run(function, Estimate(mean, low, high, 0.0, 3), 0.925)
        expect(mine == right, f"claimed 0.925, found {mean} [{low}, {high}]: {mine!r}, but {why}: {right!r}")
    found = {name: estimate(records.read(name), records.facts("test")) for name in ("attention-r1-s2", "attention-r8-s1")}
    lines = [f"{name} reaches 92.5 %: {figure}, {function(figure, 0.925)}" for name, figure in found.items()]
    return "\n".join(["a mean above the claim is not enough, nor one below it", *lines])


@judged
def little(function):
    for mean, low, high, right, why in (
        (0.001, -0.004, 0.006, HOLDS, "the whole interval is within one point of zero"),
        (0.020, 0.012, 0.028, FAILS, "the whole interval is more than one point above zero"),
        (-0.020, -0.028, -0.012, FAILS, "the whole interval is more than one point below zero; a difference can be negative"),
        (0.003, -0.012, 0.018, CANT_TELL, "the mean is small, but the interval reaches beyond a point"),
        (0.012, 0.004, 0.020, CANT_TELL, "it leaves out zero, but a difference that is there may still be little"),
        (0.006, 0.002, 0.010, HOLDS, "it leaves out zero and is little all the same: its upper end is exactly one point"),
    ):
        mine = run(function, Estimate(mean, low, high, 0.0, 3), 0.01)
        expect(mine == right, f"limit 0.01, found {mean} [{low}, {high}]: {mine!r}, but {why}: {right!r}")
    return "small isn't the same as not shown to be large, and leaving out zero isn't the same as large"


@judged
def width(function):
    for rank, share in ((1, 1e-4), (8, 1e-4), (1, 1e-3), (4, 2e-3)):
        mine = whole(run(function, rank, share), f"smallest_width({rank}, {share})")
        right = _smallest(2 * rank, 3 * share)
        compare(mine, right, {
            "that's the largest width that's still too narrow; one more": right - 1,
            "each adapter has A [r, d] and B [d, r], so 2 r d parameters": _smallest(rank, 3 * share),
            "there are four adapters in a block, not one": _smallest(rank, 6 * share),
            "the adapters grow with the rank": _smallest(2, 3 * share) if rank > 1 else -1,
            "divide by the whole block, 12 d² parameters, not by attention's 4 d²": _smallest(2 * rank, share),
        }, f"at rank {rank} and a share of {share:g}, the condition is 8 r d <= share * 12 d²", rtol=0, atol=0)  # fmt: skip
    return f"rank 1 trains one parameter in ten thousand of a block from width {_smallest(2, 3e-4):,} on, rank 8 from {_smallest(16, 3e-4):,} on"


def _smallest(above: float, below: float) -> int:
    """The smallest whole number that is at least above / below; a hair below it counts as reached."""
    return -int(-(above / below) * (1 - 1e-12) // 1)


@judged
def what_trained(function):
    whole_model = {"head": 595_206, "total": 66_994_950}
    for trained, adapters, head, total, right, why in (
        (632_070, 36_864, *whole_model.values(), "LoRA", "adapters and head train, and nothing else"),
        (52_820_742, 36_864, *whole_model.values(), "LoRA with the rest unfrozen", "far more trains than adapters and head"),
        (66_958_086, 0, 595_206, 66_958_086, "full fine-tuning", "everything trains, and there are no adapters"),
        (66_994_950, 36_864, *whole_model.values(), "LoRA with the rest unfrozen", "there are adapters, but nothing was frozen"),
        (36_864, 36_864, *whole_model.values(), "something else", "the head doesn't train: it was left as it was drawn"),
        (595_206, 0, 595_206, 66_958_086, "something else", "only the head trains, and there are no adapters"),
    ):
        mine = run(function, trained, adapters, head, total)
        one_of(mine, KINDS, function.__name__ + "'s answer")
        expect(mine == right, f"{trained:,} of {total:,} train, {adapters:,} in adapters and {head:,} in the head: {mine!r}, but {why}")
    return "six logs told apart, and a classifier whose new head doesn't train is none of the three"
