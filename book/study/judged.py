"""Every comparison that a page of the book judges: which settings, for which chapter.

`make tables` writes them with their verdicts to book/verdicts.md, and the gate holds the text of
each chapter to that page. A comparison whose records are not there yet is shown as not run.
"""

from dataclasses import dataclass

from . import records
from .verdicts import Comparison, compare

QLORA, TINY = "qlora/minilm", "tiny/minilm"
WORDS = {
    "full": "full fine-tuning", "head": "the head alone", "bias": "all biases", "last-block": "the last block",
    "epochs-3-r8": "rank 8 in all linear layers, three epochs", "epochs-3-full": "full fine-tuning, three epochs",
    "batch-8-r8": "rank 8 in all linear layers, batches of 8",
    "head-first-r8": "rank 8 in all linear layers, batches of 8, the head fitted first",
    "reinit-r8": "rank 8 in all linear layers on a random base", "reinit-full": "full fine-tuning on a random base",
    "public-r1": "the experiment's recipe as published, rank 1",
    "public-rate-r1": "rank 1 in attention at the published rate",
    "variant-rslora": "rsLoRA", "variant-lora-plus": "LoRA+", "variant-dora": "DoRA", "variant-pissa": "PiSSA",
    "xs-294": "LoRA-XS of 294 parameters", "xs-2250": "LoRA-XS of 2,250", "vector-2256": "a shared vector of 2,256",
    "vector-5766": "a shared vector of 5,766", "vector-2256-epochs-8": "a shared vector of 2,256 in eight epochs",
    "lora-2022": "plain LoRA of 2,022 in one block",
    "fp32-r8-s2": "rank 8 in all linear layers, s = 2, in float32",
    "recipe-r1": "LoRA, rank 1", "recipe-r8": "LoRA, rank 8", "recipe-full": "full fine-tuning",
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """The runs of some settings minus those of others, which a chapter judges.

    Args:
        chapter: the page's file name without its ending.
        one, other: (folder of ``results/``, setting) each; several are averaged within each seed.
        says: what the comparison is, in words.
    """

    chapter: str
    one: tuple[tuple[str, str], ...]
    other: tuple[tuple[str, str], ...]
    says: str

    @property
    def made(self) -> str:
        """What its runs computed in: "bf16", or "bf16 and fp32" where the two sides were made apart."""
        runs = [run for folder, name in (*self.one, *self.other) for run in records.read(name, folder, self.seeds)]
        return " and ".join(sorted({run["history"]["precision"] for run in runs}))

    @property
    def missing(self) -> list[str]:
        """Settings without a tested run."""
        return [name for folder, name in (*self.one, *self.other) if not _tested(folder, name)]

    @property
    def seeds(self) -> list[int]:
        """The seeds that all of its settings have."""
        return sorted(set.intersection(*({run["train"]["seed"] for run in _tested(*setting)} for setting in (*self.one, *self.other))))

    def compare(self) -> Comparison:
        """The difference with its verdict, from ``seeds``."""
        return compare(*([_tested(*setting) for setting in side] for side in (self.one, self.other)))


def _tested(folder: str, setting: str) -> list[dict]:
    runs = records.read(setting, folder) if records.has(setting, folder) else []
    return [run for run in runs if run["test"] and not run["failure"]]


def _words(setting: str) -> str:
    if setting in WORDS:
        return WORDS[setting]
    where, rank, scale = setting.rsplit("-", 2)
    place = {"attention": "attention", "all-linear": "all linear layers", "float-all-linear": "all linear layers"}[where]
    return f"rank {rank[1:]} in {place}, s = {scale[1:]}"


def _sweep(chapter: str, *pairs: tuple[str, str]) -> list[Judged]:
    place = records.SWEEP
    return [
        Judged(chapter, ((place, one),), ((place, other),), f"{_words(one)}, minus {_words(other)}") for one, other in pairs
    ]


def _both_scales(one: tuple[str, int], other: tuple[str, int]) -> Judged:
    """Two (place, rank), each at both scales."""
    places = {"attention": "attention", "all-linear": "all linear layers"}
    sides = [[(records.SWEEP, f"{where}-r{rank}-s{s}") for s in (1, 2)] for where, rank in (one, other)]
    first = f"rank {one[1]}" + (f" in {places[one[0]]}" if one[0] != other[0] else "")
    says = f"{first} minus rank {other[1]} in {places[other[0]]}, both scales"
    return Judged("12_rank_and_placement", (*sides[0],), (*sides[1],), says)


def _scale() -> Judged:
    where = [*(f"attention-r{r}" for r in (1, 4, 8, 16)), *(f"all-linear-r{r}" for r in (1, 8))]
    one, minus = ([(records.SWEEP, f"{w}-s{s}") for w in where] for s in (2, 1))
    return Judged("12_rank_and_placement", (*one,), (*minus,), "scale 2 minus scale 1, all ranks and places")


PLAIN = "all-linear-r8-s2"
JUDGED: tuple[Judged, ...] = (
    *(
        Judged("05_finetune", ((records.SWEEP, one),), ((records.SWEEP, other),), f"{_words(one)}, minus {_words(other)}, one recipe")
        for one, other in (("recipe-r8", "recipe-full"), ("recipe-r1", "recipe-full"), ("recipe-r8", "recipe-r1"))
    ),
    *_sweep(
        "09_low_rank_updates",
        *((name, "full") for name in ("all-linear-r1-s1", "all-linear-r8-s1", "attention-r1-s1", "attention-r8-s1")),
        ("reinit-r8", "reinit-full"),
    ),
    _both_scales(("attention", 4), ("attention", 1)),
    *(_both_scales(("attention", rank), ("attention", 8)) for rank in (1, 4, 16)),
    _both_scales(("all-linear", 1), ("all-linear", 8)),
    _scale(),
    _both_scales(("all-linear", 1), ("attention", 1)),
    *_sweep(
        "12_rank_and_placement",
        *(("all-linear-r1-s1", f"attention-r{rank}-s1") for rank in (1, 4, 16)), ("full", "attention-r16-s1"),
    ),
    *_sweep(
        "12_rank_and_placement",
        (PLAIN, "attention-r16-s2"), ("attention-r1-s2", "bias"), ("all-linear-r1-s2", "attention-r16-s2"),
        ("all-linear-r1-s2", "last-block"), ("bias", "head"), ("full", PLAIN), ("full", "all-linear-r1-s2"),
    ),
    *_sweep("13_variants", *((f"variant-{name}", PLAIN) for name in ("rslora", "lora-plus", "dora", "pissa"))),
    Judged("16_qlora", ((QLORA, PLAIN),), ((QLORA, f"float-{PLAIN}"),), "an NF4 base minus a float one, rank 8 in all linear layers"),
    *(
        Judged("a1_tiny_adapters", (one,), (other,), f"{_words(one[1])}, minus {_words(other[1])}")
        for one, other in (
            ((TINY, "xs-2250"), (records.SWEEP, "head")), ((TINY, "xs-294"), (records.SWEEP, "head")),
            ((TINY, "vector-2256"), (records.SWEEP, "last-block")),
            ((TINY, "xs-2250"), (TINY, "lora-2022")), ((TINY, "vector-2256"), (TINY, "xs-2250")),
            ((TINY, "vector-2256"), (records.SWEEP, "epochs-3-r8")), ((TINY, "vector-5766"), (records.SWEEP, "epochs-3-r8")),
            ((TINY, "vector-2256-epochs-8"), (records.SWEEP, "public-r1")),
        )
    ),
    *_sweep(
        "a3_claims",
        ("public-r1", "public-rate-r1"), ("attention-r1-s2", "public-rate-r1"),
        ("public-r1", "attention-r1-s2"), ("public-r1", "all-linear-r1-s2"),
        ("attention-r4-s1", "attention-r1-s1"), ("attention-r8-s1", "attention-r1-s1"), ("attention-r8-s2", "attention-r8-s1"),
    ),
    *_sweep(
        "choosing",
        ("all-linear-r1-s2", "attention-r1-s2"), ("reinit-r8", "reinit-full"),
        ("epochs-3-r8", PLAIN), ("epochs-3-r8", "full"), ("head-first-r8", "batch-8-r8"),
    ),
)  # fmt: skip
