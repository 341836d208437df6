"""The grammar read backwards gives every sentence of the corpus its label, and nothing else one."""

import pytest

from lora_from_scratch.finetune.corpus import LABEL_NAMES, built_in_corpus
from study.grammar import label_by_rules, shorten


@pytest.mark.parametrize("seed", [0, 9])
def test_every_sentence_has_its_label_and_no_other(seed):
    for texts, labels in built_in_corpus(seed).values():
        assert [label_by_rules(text) for text in texts] == [LABEL_NAMES[label] for label in labels]


def test_the_order_of_words_decides():
    assert label_by_rules("i am more happy than sad today") == "joy"
    assert label_by_rules("i am more sad than happy today") == "sadness"
    assert label_by_rules("im more sad than happy today") == "sadness"


@pytest.mark.parametrize(
    "text",
    ["", "i", "i am", "i am more happy than glad today", "i am more happy than sad", "today",
     "i am more happy than sad today today", "first i was sad then i was miserable and now i am happy",
     "these days i am happy at home but for years i was startled", "I am more happy than sad today", "my cat is happy"],
)  # fmt: skip
def test_what_the_grammar_cannot_make_has_no_label(text):
    assert label_by_rules(text) is None


def test_short_forms_do_not_tell_sentences_apart():
    assert shorten("i am happy and i do not know why") == shorten("im happy and i dont know why")
