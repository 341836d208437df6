"""Train SmolLM2 to answer with an emotion, beside what it answers untrained; one record a run.

python -m book.study.runs.language                    every run whose record is missing
python -m book.study.runs.language tune r8 --jobs 2   those whose name starts so
python -m book.study.runs.language --list             what there is, what is done, what waits and why

A run is one call of the package's command line; its record goes to results/language/smollm2/NAME.json. Rates are chosen on
validation with 300 steps of 16 rows. The runs of an epoch take the best of them. The base of four bits and its float twin
train for 400 steps. All compute in bf16, so on a CPU they wait for one that is fast in it.
"""

import os
import sys
from dataclasses import asdict
from functools import partial

from lora_from_scratch.finetune import evaluate, load_classifier

from .. import records
from ..language import FOLDER
from . import one, sweep
from .plan import best_rate

MODEL = "smollm2"
COMMON = "--batch-size 16 --precision bf16"
# How each method is called, the rates it may choose from, and the seeds of its runs of an epoch: three where one takes over half an hour.
TUNED = {
    "r8": ("--rank 8 --scaling 2", ("5e-4", "1e-3", "2e-3"), range(5)),
    "full": ("--method full", ("2e-5", "5e-5"), range(3)),
}
TWINS, STEPS = range(3), 400


def flags() -> dict[str, str | None]:
    """All runs by name, each with its flags; None while it waits for a rate."""
    found: dict[str, str | None] = {}
    for name, (how, rates, _) in TUNED.items():
        for rate in rates:
            found[f"tune-{name}-lr{rate}"] = f"{COMMON} {how} --lr {rate} --max-steps 300 --no-test"
    for name, (how, rates, seeds) in TUNED.items():
        rate = best_rate(name, rates, FOLDER)
        for seed in seeds:
            found[f"{name}-seed{seed}"] = rate and f"{COMMON} {how} --lr {rate} --seed {seed}"
    rate = best_rate("r8", TUNED["r8"][1], FOLDER)
    for seed in TWINS:
        how = rate and f"{COMMON} {TUNED['r8'][0]} --lr {rate} --max-steps {STEPS} --seed {seed}"
        found[f"nf4-{STEPS}-seed{seed}"] = how and f"{how} --quantize nf4"
        found[f"float-{STEPS}-seed{seed}"] = how
    return found


def zero_shot() -> dict:
    """What the model answers before it is trained, by the same prompt, in float32."""
    data, classifier = records.real_data(), load_classifier(MODEL)
    scores = {split: asdict(evaluate(classifier, getattr(data, split))) for split in ("validation", "test")}
    about = {"backbone": MODEL, "base_sha256": classifier.base_sha256, "max_length": classifier.max_length} | classifier.about()
    return about | {"data": {"source": data.source, "is_real": data.is_real, "fingerprint": data.fingerprint}} | scores


def runs() -> dict[str, one.Run]:
    """Every run of this page, with the untrained model first."""
    folder = records.RESULTS / FOLDER
    found = {"zero-shot": one.Run(folder / "zero-shot.json", zero_shot)}
    for name, how in flags().items():
        call = partial(one.finetune, records.ROOT / "runs" / FOLDER / name, "--model", MODEL, *(how or "").split())
        waits = how is not None and sweep.waits(how)
        said = f"{how or '(for its rate)'}{' (for a machine that is fast in bf16)' * waits}"
        found[name] = one.Run(folder / f"{name}.json", None if how is None or waits else call, said)
    return found


def main() -> int:
    parser = one.parser("language", __doc__, jobs=True)
    args = parser.parse_args()
    if args.jobs > 1:
        os.environ["OMP_NUM_THREADS"] = "1"  # more threads than cores wait for one another
    return one.run_missing(parser, args, runs)


if __name__ == "__main__":
    sys.exit(main())
