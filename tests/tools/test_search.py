"""Search: what a reader types leads to the section that answers it, in the built site and its own page."""

import re

import pytest
from fontTools.ttLib import TTFont

from tests.site import SITE, open_page, skip_unless_ci

# What is typed, and the section (or term) that must come first. Where several stand in a line, one is as good as another.
FIRST = {
    "learning rate": "choosing.html#learning-rate-tune-this-one-first",
    "good learning rate": "11_learning_rate_and_alpha.html#what-is-a-good-learning-rate-for-lora",
    "alpha": "11_learning_rate_and_alpha.html#(what-does-lora-alpha-do|should-lora-alpha-grow-with-the-rank)",
    "merge": "06_save_merge_share.html#merge-lora-weights-and-unmerge-them",
    "merging weights": "06_save_merge_share.html#merge-lora-weights-and-unmerge-them",
    "qlora": "16_qlora.html#(qlora-accuracy-what-do-four-bits-cost|how-much-memory-does-qlora-save)",
    "QLoRA memory": "16_qlora.html#how-much-memory-does-qlora-save",
    "GPU memory": "(a2_speed.html#when-does-lora-not-save-memory|05_finetune.html#how-much-memory-does-a-training-step-need)",
    "memory 7B": "05_finetune.html#how-much-memory-does-lora-save-on-a-7b-model",
    "catastrophic forgetting": "10_forgetting.html#does-lora-prevent-catastrophic-forgetting",
    "overfitting": "glossary.html#term-overfitting",
    "save adapter": "06_save_merge_share.html#save-a-lora-adapter-what-s-in-the-file",
    "target modules": "12_rank_and_placement.html#lora-target-modules-what-does-each-choice-cost",
    "target_modules": "12_rank_and_placement.html#lora-target-modules-what-does-each-choice-cost",
    "which rank": "(12_rank_and_placement.html#what-lora-rank-should-you-use|09_low_rank_updates.html#.+)",
    "DoRA": "13_variants.html#dora-what-is-weight-decomposition",
    "rslora": "13_variants.html#rslora-what-does-r-change",
    "lora_A is missing": "07_silent_bugs.html#lora-a-is-missing-from-the-state-dict",
    "why does B start at zero": "02_lora_layer.html#lora-initialisation-why-does-b-start-at-zero",
    "how many parameters": "(02_lora_layer.html#how-many-parameters-does-lora-train|a1_tiny_adapters.html#?.*)",
    "NF4": "16_qlora.html#nf4-why-are-its-levels-quantiles",
    "perplexity": "15_language_model.html#judging-by-perplexity-did-each-voice-learn-its-emotion",
    "DPO": "18_reward.html#dpo-preference-without-sampling",
    "reward hacking": "18_reward.html#does-a-model-always-hack-its-reward",
    "KL penalty": "18_reward.html#what-does-a-kl-penalty-do",
    "load in PEFT": "(06_save_merge_share.html#load-a-lora-adapter-in-peft|take_it_elsewhere.html#how-do-i-load-it-in-peft-and-transformers)",
    "classifier head": "06_save_merge_share.html#peft-modules-to-save-where-did-the-classifier-head-go",
    "vllm": "take_it_elsewhere.html#how-do-i-serve-it-with-vllm",
    "llama.cpp": "take_it_elsewhere.html#how-do-i-run-it-in-llama-cpp",
    "padding": "a2_speed.html#padding-how-much-work-is-wasted",
    "macro-F1": "04_emotion_data.html#accuracy-or-macro-f1-which-should-you-report",
    "learning rate warm-up": "11_learning_rate_and_alpha.html#what-does-learning-rate-warm-up-do",
    "DistilBERT": "a3_claims.html#how-can-you-test-the-claims-on-distilbert",
    "catastrofic forgeting": "10_forgetting.html#.+",  # misspelt
    "quantization": "(16_qlora.html#.+|glossary.html#term-quantisation)",  # American
}


@pytest.fixture(scope="module")
def tab(browser):
    if not (SITE / "search.html").exists():
        skip_unless_ci("no search page: build the book with make book")
    opened = open_page(browser, SITE / "search.html", viewport={"width": 1280, "height": 900})
    yield opened
    opened.context.close()


@pytest.mark.parametrize("query", FIRST)
def test_a_query_finds_its_section_first(tab, query):
    found = tab.evaluate("query => bookSearch(query).slice(0, 3).map(result => result.id)", query)
    assert found and re.fullmatch(f"book/({FIRST[query]})", found[0]), found


def test_a_result_leads_to_a_heading_that_is_there(tab):
    ids = tab.evaluate("() => BOOK_SECTIONS.map(section => section.url)")
    assert len(ids) > 300 and len(set(ids)) == len(ids)
    pages = {}
    for url in ids:
        page, _, anchor = url.partition("#")
        text = pages.setdefault(page, (SITE / page).read_text(encoding="utf-8"))
        assert not anchor or f'id="{anchor}"' in text, url


def test_a_result_has_the_words_around_what_was_found(tab):
    tab.locator(".bd-search-container input").fill("merging")
    first = tab.locator("#search-results li").first
    assert {mark.lower() for mark in first.locator("mark").all_inner_texts()} & {"merge", "merged", "merging"}
    assert len(first.locator("p").inner_text()) < 300 and "\\" not in first.inner_text()
    assert tab.locator("#search-results [role=status]").inner_text().endswith("places for “merging”.")


def test_what_is_nowhere_is_said_and_markup_stays_text(tab):
    tab.locator(".bd-search-container input").fill("<img/src=qqqzzz>")
    said = tab.locator("#search-results").inner_text()
    assert "for “<img/src=qqqzzz>”" in said
    assert not tab.locator("#search-results img").count()
    tab.locator(".bd-search-container input").fill("qqqzzz")
    assert tab.locator("#search-results [role=status]").inner_text().startswith("Nothing found for “qqqzzz”. Try fewer words")
    tab.locator(".bd-search-container input").fill("")
    assert not tab.locator("#search-results").inner_text().strip()


def test_the_magnifier_leaves_the_first_letter_free(tab):
    field = tab.locator(".bd-search-container form")
    icon, left = field.locator("i, svg").first.bounding_box(), field.locator("input").evaluate(
        "e => e.getBoundingClientRect().left + parseFloat(getComputedStyle(e).paddingLeft)")  # fmt: skip
    assert icon["x"] + icon["width"] <= left


def test_without_scripts_the_page_says_where_else_to_look(browser):
    tab = open_page(browser, SITE / "search.html", java_script_enabled=False)
    assert "needs JavaScript" in tab.locator("#main-content noscript").inner_text()
    tab.context.close()


def test_only_the_search_page_loads_the_index():
    loading = [page.name for page in SITE.rglob("*.html") if "search-index.js" in page.read_text(encoding="utf-8")]
    assert loading == ["search.html"]


def test_the_cut_fonts_have_the_icons_of_the_theme_s_styles():
    fonts = [TTFont(path).getBestCmap() for path in SITE.glob("_static/vendor/fontawesome/webfonts/*.woff2")]
    styles = "".join(path.read_text(encoding="utf-8") for path in SITE.glob("_static/styles/*theme.css"))
    signs = {sign for sign in styles if "\ue000" <= sign <= "\uf8ff"}
    assert signs and not [hex(ord(sign)) for sign in signs if not any(ord(sign) in font for font in fonts)]
