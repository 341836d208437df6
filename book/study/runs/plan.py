"""The list of the sweep's runs: what each is called, its flags, and what waits for what.

The runs named tune-… choose a learning rate for each method (for the lowest and the highest rank of
LoRA), with seed 0, on validation, and never look at test. What is named after a method waits for its
tune-… runs and takes the best of their rates.
"""

import math

from .. import records

SEEDS, FEW = range(5), range(3)  # five for what a verdict leans on, three for controls
RANKS, SCALINGS = (1, 4, 8, 16), (1, 2)
# The public experiment's batch, length (64, the default) and one epoch; else our defaults. All in bf16, so that
# the settings can be compared; `sweep` leaves them to a machine that is fast in it.
COMMON = "--batch-size 16 --precision bf16"
# What is tuned: a method's flags, and which rates it may choose from.
# Where the best stood at the end of a grid, the grid was made longer.
LORA_RATES = ("5e-4", "1e-3", "2e-3", "5e-3")
TUNED = {
    "attention-r1": ("--targets attention --rank 1 --scaling 2", (*LORA_RATES, "1e-2")),
    "attention-r16": ("--targets attention --rank 16 --scaling 2", LORA_RATES),
    "all-linear-r1": ("--rank 1 --scaling 2", (*LORA_RATES, "1e-2")),
    "all-linear-r8": ("--rank 8 --scaling 2", LORA_RATES),
    "full": ("--method full", ("5e-5", "1e-4", "2e-4", "5e-4")),
    "last-block": ("--method last-block", ("1e-4", "2e-4", "5e-4", "1e-3", "2e-3", "5e-3")),
    "bias": ("--method bias", ("5e-4", "1e-3", "2e-3", "5e-3", "1e-2", "2e-2")),
    "head": ("--method head", ("2e-3", "5e-3", "1e-2", "2e-2", "5e-2", "1e-1")),
    "reinit-r8": ("--rank 8 --scaling 2 --control reinit", LORA_RATES),
    "reinit-full": ("--method full --control reinit", ("1e-4", "2e-4", "5e-4", "1e-3")),
    "epochs-3-r8": ("--rank 8 --scaling 2 --epochs 3", LORA_RATES[:3]),
    "epochs-3-full": ("--method full --epochs 3", ("2.5e-5", "5e-5", "1e-4")),
    # More steps, of smaller batches; and a head that is fitted first.
    "batch-8-r8": ("--batch-size 8 --rank 8 --scaling 8 --head-lr 2e-3", ("2e-4", "5e-4", "1e-3")),
    "head-first-r8": ("--batch-size 8 --rank 8 --scaling 8 --head-lr 2e-3 --head-first", ("2e-4", "5e-4", "1e-3")),
    # The same recipe as all-linear-r8-s2 and full, but for the batch.
    "batch-8-r8-s2": ("--batch-size 8 --rank 8 --scaling 2", ("5e-4", "1e-3", "2e-3")),
    "batch-64-r8-s2": ("--batch-size 64 --rank 8 --scaling 2", ("1e-3", "2e-3", "5e-3")),
    "batch-256-r8-s2": ("--batch-size 256 --rank 8 --scaling 2", ("2e-3", "5e-3", "1e-2")),
    "batch-8-full": ("--batch-size 8 --method full", ("2.5e-5", "5e-5", "1e-4")),
    "batch-64-full": ("--batch-size 64 --method full", ("1e-4", "2e-4", "5e-4")),
    "batch-256-full": ("--batch-size 256 --method full", ("2e-4", "5e-4", "1e-3")),
}
# Chapter 13's: rank 8 on all linear layers like all-linear-r8, each in its authors' convention of scaling,
# over rates that lie around their advice (LoRA+'s rate is A's, B's is 16 times that).
VARIANTS = {
    "rslora": ("--rank 8 --scaling 5.65685", ("2e-4", *LORA_RATES[:3])),  # 16 / sqrt(8)
    "lora-plus": ("--rank 8 --scaling 2 --b-ratio 16", ("5e-5", "1e-4", "2e-4", "5e-4")),
    "dora": ("--rank 8 --scaling 2 --variant dora", LORA_RATES),
    "pissa": ("--rank 8 --scaling 1 --variant pissa", ("2e-4", *LORA_RATES[:3])),
}
TUNED |= {f"variant-{name}": how for name, how in VARIANTS.items()}
# The README's recipe, which is the command line's own (batches of 4, one epoch, scaling 8), for each way to train.
RECIPE = {
    "recipe-r8": ("--rank 8", ("2.5e-4", "5e-4", "1e-3")),
    "recipe-r1": ("--rank 1", ("5e-4", "1e-3", "2e-3")),
    "recipe-full": ("--method full", ("2.5e-5", "5e-5", "1e-4")),
    "recipe-head": ("--method head", ("2e-3", "5e-3", "1e-2", "2e-2", "5e-2")),
}
# Whose runs take their own best rate, with the flags that were tuned.
AS_TUNED = (
    "epochs-3-r8", "epochs-3-full", *(f"variant-{v}" for v in VARIANTS), "batch-8-r8", "head-first-r8",
    *(f"batch-{size}-{what}" for size in (8, 64, 256) for what in ("r8-s2", "full")),
)  # fmt: skip
RANDOM = "--control random-labels --epochs 10 --no-test --scaling 2"
RANDOM_RANKS = (1, 4, 16)
CAPACITY = {"rank": (1, 16, 4, 64), "rows": (512, 8192, 16000)}  # beside RANDOM's 2,048; in the order of their worth
Flags = dict[str, str | None]  # by run; None while it waits for a rate


def flags(model: str = "minilm") -> Flags:
    """All runs by name, in the order in which they are made, each with its flags."""
    folder = f"sweep/{model}"
    best = {name: best_rate(name, rates, folder) for name, (_, rates) in (TUNED | RECIPE).items()}
    best |= {f"random-r{rank}": best_rate(f"random-r{rank}", LORA_RATES[1:], folder) for rank in RANDOM_RANKS}
    found = _tuning()
    for part, seeds in (
        (_recipe, SEEDS), (_lora, SEEDS), (_other_methods, SEEDS), (_as_tuned, SEEDS), (_public, FEW), (_controls, FEW), (_precision, FEW),
    ):  # fmt: skip
        for seed in seeds:
            found |= part(best, seed)
    for seed in range(2):
        found |= _scaling_rules(best, seed)
    return found | _capacity(best)


def best_rate(name: str, rates: tuple[str, ...], folder: str) -> str | None:
    """The rate of the best of a method's tune-… runs on validation; None while one is missing."""
    done = records.tuned(name, folder)
    if not all(float(rate) in done for rate in rates):
        return None
    accuracy = {rate: 0.0 if run["failure"] else run["validation"]["accuracy"] for rate, run in done.items()}
    return max(rates, key=lambda rate: accuracy[float(rate)])


def _tuning() -> Flags:
    found: Flags = {}
    for name, (how, rates) in TUNED.items():
        for rate in rates:
            found[f"tune-{name}-lr{rate}"] = f"{COMMON} {how} {_rate(name, rate)} --no-test"
    for name, (how, rates) in RECIPE.items():
        for rate in rates:
            found[f"tune-{name}-lr{rate}"] = f"--precision fp32 {how} {_rate(name, rate)} --no-test"
    for rank in RANDOM_RANKS:
        for rate in LORA_RATES[1:]:
            found[f"tune-random-r{rank}-lr{rate}"] = f"{COMMON} {RANDOM} --rank {rank} --lr {rate}"
    return found


def _lora(best: Flags, seed: int) -> Flags:
    """LoRA by targets, rank and scaling; a rank between those tuned takes a rate between theirs."""
    found = {}
    for rank in RANKS:
        rate = _between(best["attention-r1"], best["attention-r16"], math.log(rank, 16))
        for s in SCALINGS:
            how = f"--targets attention --rank {rank} --scaling {s}"
            found[f"attention-r{rank}-s{s}-seed{seed}"] = _run(how, rate, seed)
    for rank in (1, 8):
        for s in SCALINGS:
            how = f"--rank {rank} --scaling {s}"
            found[f"all-linear-r{rank}-s{s}-seed{seed}"] = _run(how, best[f"all-linear-r{rank}"], seed)
    return found


def _other_methods(best: Flags, seed: int) -> Flags:
    found = {}
    for name in ("head", "bias", "last-block", "full"):
        rate = best[name] and _rate(name, best[name])
        extra = " --spectra" if name == "full" else ""
        found[f"{name}-seed{seed}"] = rate and f"{COMMON} {TUNED[name][0]} {rate} --seed {seed}{extra}"
    return found


def _public(best: Flags, seed: int) -> Flags:
    """The public experiment's rate for everything; and what it trained, base weights too."""
    found = {}
    for rank in (1, 16):
        how = f"{COMMON} --targets attention --rank {rank} --scaling 2 --lr 1e-4 --head-lr 1e-4 --seed {seed}"
        found[f"public-rate-r{rank}-seed{seed}"] = how
        # The same, but that the head learns at its own rate: which of the two low rates holds the runs back?
        found[f"public-rate-own-head-r{rank}-seed{seed}"] = how.replace("--head-lr 1e-4", "--head-lr 2e-3")
        found[f"public-r{rank}-seed{seed}"] = f"{how} --method lora-unfrozen --base-dropout 0.1"
    return found


def _as_tuned(best: Flags, seed: int) -> Flags:
    return {f"{name}-seed{seed}": _run(TUNED[name][0], best[name], seed) for name in AS_TUNED}


def _controls(best: Flags, seed: int) -> Flags:
    """No pre-training, and labels by chance."""
    found = {f"{name}-seed{seed}": _run(TUNED[name][0], best[name], seed) for name in ("reinit-r8", "reinit-full")}
    for rank in RANDOM_RANKS:
        found[f"random-r{rank}-seed{seed}"] = _run(f"{RANDOM} --rank {rank}", best[f"random-r{rank}"], seed)
    return found


def _precision(best: Flags, seed: int) -> Flags:
    """What bf16 costs or saves in accuracy, and what more steps bring."""
    found, rate = {}, best["all-linear-r8"]
    for name, batch in (("fp32", 16), ("fp32-batch-8", 8)):
        how = f"--precision fp32 --batch-size {batch} --rank 8 --scaling 2 --lr {rate}"
        found[f"{name}-r8-s2-seed{seed}"] = rate and f"{how} --seed {seed}"
    return found


def _recipe(best: Flags, seed: int) -> Flags:
    """The README's runs."""
    found = {}
    for name, (how, _) in RECIPE.items():
        rate = best[name]
        found[f"{name}-seed{seed}"] = rate and f"--precision fp32 {how} {_rate(name, rate)} --seed {seed}"
    return found


def _capacity(best: Flags) -> Flags:
    """Labels by chance on more and more rows, until a rank cannot learn them; one seed, at the rate of 2,048 rows."""
    found = {}
    for rank in CAPACITY["rank"]:
        rate = best.get(f"random-r{rank}") or best["random-r16"]
        for rows in CAPACITY["rows"]:
            how = f"{COMMON} {RANDOM} --control-rows {rows} --rank {rank}"
            found[f"capacity-r{rank}-n{rows}-seed0"] = rate and f"{how} --lr {rate} --seed 0"
    return found


def _scaling_rules(best: Flags, seed: int) -> Flags:
    """alpha, alpha / r and alpha / sqrt(r) at one rate, equal at rank 8."""
    found = {}
    anchor = _between(best["attention-r1"], best["attention-r16"], math.log(8, 16))
    for rank in (1, 64, 256):
        for name, s in (("alpha", 2), ("alpha-r", 2 * 8 / rank), ("alpha-sqrt-r", 2 * math.sqrt(8 / rank))):
            found[f"{name}-r{rank}-seed{seed}"] = _run(f"--targets attention --rank {rank} --scaling {s:.6g}", anchor, seed)
    return found


def _rate(method: str, rate: str) -> str:
    return f"--head-lr {rate}" if method.endswith("head") else f"--lr {rate}"


def _run(how: str, rate: str | None, seed: int) -> str | None:
    return rate and f"{COMMON} {how} --lr {rate} --seed {seed}"


def _between(low: str | None, high: str | None, share: float) -> str | None:
    """The rate that lies a share of the way from one to another, on a log scale."""
    if low is None or high is None:
        return None
    return f"{math.exp((1 - share) * math.log(float(low)) + share * math.log(float(high))):.3g}"
