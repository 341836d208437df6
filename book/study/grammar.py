"""Reading the built-in corpus backwards: from a sentence to the label that its rules give it.

For real text nobody has such a judge. Here the grammar is known, so that what a language model
writes can be held against it, word for word.
"""

import functools
import re

from lora_from_scratch.finetune import corpus


def label_by_rules(text: str) -> str | None:
    """The label of a sentence that the grammar of ``built_in_corpus`` can make, else None.

    A sentence belongs to a label when it is one of the patterns with every slot filled as
    the rules of ``built_in_corpus`` say, in short forms or not. A single wrong word makes it None.

    Raises:
        ValueError: a sentence has two labels, which the lists in ``corpus`` do not allow.
    """
    short = shorten(text)
    found = [label for label, pattern in _patterns().items() if pattern.fullmatch(short)]
    if len(found) > 1:
        raise ValueError(f"the grammar gives {text!r} several labels: {', '.join(found)}")
    return found[0] if found else None


def shorten(text: str) -> str:
    """The sentence with every short form that it can have: two sentences that differ in these alone become one."""
    for long, short in corpus.SHORT_FORMS.items():
        text = text.replace(long, short)
    return text


@functools.cache
def _patterns() -> dict[str, re.Pattern]:
    lists = dict(words=corpus.WORDS, events=corpus.EVENTS, cues=corpus.CUES, shared=corpus.SHARED)
    pools = corpus._pools(lists, held_out=True)
    families = corpus._pools(corpus.PATTERNS, held_out=True)
    return {label: _pattern(label, pools, families) for label in corpus.LABEL_NAMES}


def _pattern(label: str, pools: dict, families: dict[str, list[str]]) -> re.Pattern:
    shared = {slot: _any_of(fillers) for slot, fillers in pools["shared"].items()}
    sentences = []
    for other in corpus.LABEL_NAMES:
        if other == label:
            continue
        thirds = [word for name, words in pools["words"].items() if name not in (label, other) for word in words]
        slots = shared | {"D2": _any_of(thirds)}
        for own, foreign, pool in (
            ("E", "D", "words"),
            ("event", "other_event", "events"),
            ("cue", "other_cue", "cues"),
        ):
            slots |= {own: _any_of(pools[pool][label]), foreign: _any_of(pools[pool][other])}
        for family, templates in families.items():
            if family != "lasting" or "surprise" not in (label, other):  # nobody is startled for years
                sentences += [shorten(template).format(**slots) for template in templates]
    return re.compile("|".join(sentences))


def _any_of(fillers: list[str]) -> str:
    return f"(?:{'|'.join(re.escape(shorten(filler)) for filler in fillers)})"
