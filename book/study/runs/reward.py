"""Reinforcement learning with LoRA of rank 1, 8 and 64, and DPO: the runs of chapter 18.

python -m book.study.runs.reward                     every run whose record is missing
python -m book.study.runs.reward tune-r8 r8 dpo      those whose name starts so
python -m book.study.runs.reward --list              what there is, what is done, what waits

SmolLM2 answers one question, the reward is the words judge's P(joy), and the sentence judge is the referee
(``study/reward.py``). Each run writes results/reward/smollm2/NAME.json: step by step the mean reward, the KL to the
base in nats a text, the referee's score, how strange the base finds the texts, how much they repeat each other, and
some of the texts, none of which equals a row of the dataset. A run that was killed goes on after its last step (one of DPO,
which takes four minutes, begins again).

The rate of each rank is chosen by the runs tune-…, with the penalty and a seed of their own: by the mean of what they maximise,
reward minus beta times KL, over the last steps. A rank's other runs wait for them, but for the first pair, whose rate was
not chosen so; names say the rate, so it stays what it is. A run takes two to four minutes on a core without AVX-512.
Everything is in float32 on any machine: bf16 rounds a logit of 20 by up to 0.06, which over twenty tokens is as much as
the drift that the penalty is to measure.
"""

import sys
import time
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path

import torch

from lora_from_scratch import LoraConfig, LoraError, add_lora, disable_adapter
from lora_from_scratch.finetune import TextData, load_classifier
from lora_from_scratch.finetune.language import LanguageModel, load_language_model

from .. import records, reward
from . import one

FOLDER, RANKS, SEEDS = "reward/smollm2", (1, 8, 64), range(5)
RATES, TUNE_SEED = (5e-4, 1e-3, 2e-3, 4e-3), 100
LOWER_RATES = {64: (7.8125e-6, 1.5625e-5, 3.125e-5, 6.25e-5, 1.25e-4, 2.5e-4)}  # the lowest of RATES was the best of rank 64, so lower ones are tried, too
FIRST_RATE = 2e-3  # of the first pair, rank 1 and seed 0
BETA, STEPS, TAIL = 0.1, 16, 4
PAIRS = 32  # of DPO, which sees each three times
MEANS = ("reward", "referee", "kl", "strangeness", "distinct")


@dataclass(frozen=True)
class Run:
    """What learns and how: ``method`` "reinforce" or "dpo", scaling 2 in all linear layers of the blocks."""

    rank: int
    lr: float
    beta: float
    seed: int
    steps: int = STEPS
    method: str = "reinforce"
    n: int = 16
    length: int = 16


def runs() -> dict[str, Run | None]:
    """All runs by name, in the order in which they are made; None for those that wait for their rank's rate."""
    found: dict[str, Run | None] = pair(1, FIRST_RATE, 0)
    for rank in RANKS:
        found |= {f"tune-r{rank}-lr{lr:g}": Run(rank, lr, BETA, TUNE_SEED) for lr in rates(rank)}
    for seed in SEEDS:
        for rank in RANKS:
            lr = best_rate(rank)
            found |= pair(rank, lr, seed) if lr else {f"r{rank}-{kind}-seed{seed}": None for kind in ("free", "penalty")}
        found[f"dpo-r1-seed{seed}"] = Run(1, 1e-3, BETA, seed, steps=3 * PAIRS * 2 // 16, method="dpo")
    return found


def pair(rank: int, lr: float, seed: int) -> dict:
    """Two runs that differ in the penalty alone."""
    return {f"r{rank}-lr{lr:g}-{kind}-seed{seed}": Run(rank, lr, beta, seed) for kind, beta in (("free", 0.0), ("penalty", BETA))}


def rates(rank: int) -> tuple[float, ...]:
    """What is tried for a rank, the lowest rate first."""
    return (*LOWER_RATES.get(rank, ()), *RATES)


def best_rate(rank: int) -> float | None:
    """A rank's best rate among those tried; None while one of its tries is missing."""
    tried = records.tuned(f"r{rank}", FOLDER)
    return max(tried, key=lambda lr: tail(tried[lr], "value")) if set(tried) == set(rates(rank)) else None


def tail(record: dict, key: str, steps: int = TAIL) -> float:
    """The mean of a record's last steps: of "reward", "kl", …, or of "value", reward minus beta times KL."""
    beta = record["settings"]["beta"]
    rows = [row | {"value": row["reward"] - beta * row["kl"]} for row in record["steps"][-steps:]]
    return sum(row[key] for row in rows) / len(rows)


class Study:
    """What all runs share: the model, the data and both judges."""

    def __init__(self, language: LanguageModel, data: TextData):
        self.language, self.data = language, data
        self.words = reward.words_judge(data)
        self.sentences = reward.sentence_judge(load_classifier("minilm"), data)
        self.unlike_rows = reward.not_in(data)
        self.prompt = reward.prompt_of(language.tokenizer)

    @cached_property
    def judges(self) -> dict:
        """How good both are on the first rows of test."""
        test, k = self.data.test, self.data.label_names.index("joy")
        return {name: reward.quality(judge, test.texts[:500], test.labels[:500], k)
                for name, judge in (("words", self.words), ("sentences", self.sentences))}  # fmt: skip

    def row(self, found: dict, kept: int) -> dict:
        """What a record says of the texts of one step, with the first ``kept`` of those that aren't in the dataset."""
        texts = [text for text in found["texts"] if self.unlike_rows(text)]
        return {
            "reward": found["rewards"].mean().item(),
            "referee": self.sentences(found["texts"]).mean().item(),
            "kl": found["drift"].mean().item(),
            "strangeness": (-found["base"].sum() / found["tokens"].sum()).item(),  # nats a token by the base
            "distinct": reward.distinct_pairs(found["texts"]),
            "rewards": [round(value, 4) for value in found["rewards"].tolist()],
            "texts": texts[:kept],
            "left_out": len(found["texts"]) - len(texts),
        }

    @torch.no_grad()
    def look(self, model, n: int, length: int) -> dict:
        """Sample and judge without learning; the tokens and their mask go along."""
        tokenizer = self.language.tokenizer
        tokens, mask = reward.sample_texts(model, self.prompt, n, length, tokenizer.eos_token_id)
        own = (reward.log_probs(model, self.prompt, tokens) * mask).sum(1)
        with disable_adapter(model):
            base = (reward.log_probs(model, self.prompt, tokens) * mask).sum(1)
        texts = reward.decode(tokenizer, tokens, mask)
        return {"texts": texts, "rewards": self.words(texts), "drift": own - base, "base": base, "tokens": mask.sum(1),
                "sampled": tokens, "mask": mask}  # fmt: skip


@cache
def study() -> Study:
    return Study(load_language_model("smollm2"), records.real_data())


def train(name: str, run: Run, study_of=study, folder: Path | None = None) -> dict:
    """Train one run, from its last step if it was killed; returns its record."""
    shared, started = study_of(), time.process_time()
    model = load_language_model(shared.language.name).model  # its adapter goes with it
    torch.manual_seed(run.seed)
    add_lora(model, LoraConfig(run.rank, 2 * run.rank, target_modules="all-linear"))
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=run.lr, weight_decay=0)
    path = (folder or records.ROOT / "runs" / "reward") / f"{name}.pt"
    rows, spent = [], 0.0
    if run.method == "dpo":
        rows = learn_from_pairs(shared, model, optimiser, run)
    elif path.exists():
        kept = torch.load(path, weights_only=True)
        if kept["settings"] != asdict(run):
            raise LoraError(f"{path} is of {kept['settings']}, expected {asdict(run)}: delete it to begin again")
        rows, spent = kept["rows"], kept["cpu_seconds"]
        with torch.no_grad():
            for key, p in trained.items():
                p.copy_(kept["trained"][key])
        optimiser.load_state_dict(kept["optimiser"])
        torch.set_rng_state(kept["random"])
    while len(rows) < run.steps and run.method == "reinforce":
        found = reward.reinforce_step(
            model, shared.language.tokenizer, optimiser, shared.prompt, shared.words, run.n, run.length, run.beta
        )
        rows.append(shared.row(found, run.n if len(rows) in (0, run.steps - 1) else 4))
        print(f"{name} {len(rows):>3}: " + ", ".join(f"{key} {rows[-1][key]:.3f}" for key in MEANS), flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"settings": asdict(run), "rows": rows, "cpu_seconds": spent + time.process_time() - started, "optimiser": optimiser.state_dict(),
                 "trained": {n: p.detach() for n, p in trained.items()}, "random": torch.get_rng_state()}  # fmt: skip
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)
    record = {
        "language_model": {key: getattr(shared.language, key) for key in ("name", "hub", "sha256", "rounded")},
        "data": {"source": shared.data.source, "is_real": shared.data.is_real, "fingerprint": shared.data.fingerprint},
        "settings": asdict(run) | {"scaling": 2, "precision": "fp32", "prompt": list(reward.PROMPT)},
        "trained_parameters": sum(p.numel() for p in trained.values()),
        "judges_on_test": shared.judges,
        "steps": rows,
        "cpu_seconds": round(spent + time.process_time() - started, 1),
    }
    path.unlink(missing_ok=True)
    return record


def learn_from_pairs(shared: Study, model, optimiser, run: Run) -> list[dict]:
    """DPO on pairs of the base's own texts, ranked by the reward: two rows, before and after, of ``2 * PAIRS`` texts each."""
    before = shared.look(model, 2 * PAIRS, run.length)
    order = before["rewards"].argsort(descending=True)
    won, lost = order[:PAIRS], order[PAIRS:]
    losses: list[float] = []
    while len(losses) < run.steps:
        for some in torch.randperm(PAIRS).split(run.n // 2):
            rows = torch.cat([won[some], lost[some]])
            loss = reward.dpo_loss(
                model, shared.prompt, before["sampled"][rows], before["mask"][rows], before["base"][rows], run.beta
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    after = shared.look(model, 2 * PAIRS, run.length)
    return [shared.row(before, 2 * PAIRS), shared.row(after, 2 * PAIRS) | {"losses": losses[: run.steps]}]


def main() -> int:
    parser = one.parser("reward", __doc__)
    torch.set_num_threads(1)

    def every() -> dict[str, one.Run]:
        folder = records.RESULTS / FOLDER
        return {name: one.Run(folder / f"{name}.json", partial(train, name, run) if run else None, run or "")
                for name, run in runs().items()}  # fmt: skip

    return one.run_missing(parser, parser.parse_args(), every)


if __name__ == "__main__":
    sys.exit(main())
