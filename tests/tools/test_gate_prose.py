"""The gate's rules on numbers and on house words."""

import pytest

from tests.tools import small_book
from tests.tools.changes import breaks, found, picture_with, replace, set_source, set_tags
from tools.gate.numbers import sentences
from tools.gate.words import INSTEAD, house_words, spoken


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.delenv("EMOTION_DATA_DIR", raising=False)
    small_book.build(tmp_path)
    return tmp_path


# The good book says every number that is allowed, see SCORE_SAYS; here is one that is loose in each way.
LOOSE = [
    ("a decimal", "It reaches 93.4 on the test.", "the nearest is 92.48 in score"),
    ("a digit too many", "It gets 92.49 % right.", "the nearest is 92.48 in score"),
    ("rounded down", "It gets 92.4 % right.", "the nearest is 92.48 in score"),
    ("a percentage", "- It gains 9 % over {numref}`fig-line`, see `0.5`", "'9 %'"),
    ("a whole percentage that only a count equals", "The rest is 3 per cent.", "teach-3 prints 3, and doesn't speak of percentages"),
    ("a count", "It has 147,457 parameters.", "the nearest is 147456 in score"),
    ("more digits than the tolerance fixes", "The loss is 0.500.", "loss fixes it only from 0.4998996 to 0.5009004: give fewer digits"),
    ("what isn't compared", "It does 77.7 rows a second.", "the output of timing has it, but isn't compared"),
    ("in a table", "| run | score |\n|---|---|\n| one | 93.4 |\n| two {cite}`x` | 88.8 |", "'93.4'"),
    ("beside a citation", "Others report 88.8 {cite}`x`. Ours is 93.4.", "'93.4'"),
    ("a number in words", "It is 12 percentage points better.", "'12 percentage points'"),
    ("negative", "The change is -0.7 at most.", "'0.7'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in LOOSE], ids=[case[0] for case in LOOSE])
def test_a_loose_number_is_named_with_what_comes_nearest(root, text, message):
    line = breaks(root, "numbers", message, set_source("see", text))
    assert ": see: loose number" in line
    assert len([rule for rule, _ in found(root) if rule == "numbers"]) == 1


def test_numbers_of_captions_alt_texts_and_directives_are_bound_too(root):
    breaks(root, "numbers", "'0.7'", picture_with("figure", caption="It rises to 0.7."))
    breaks(root, "numbers", "'12 per cent'", picture_with("image", alt="A line that rises by 12 per cent."))
    image = "```{image} line.svg\n:alt: A line that rises to 0.8 from left to right.\n```"
    breaks(root, "numbers", "'0.8'", set_source("see", image))


def test_times_are_not_compared_and_bind_nothing(root):
    breaks(root, "numbers", "'4.5'", lambda cells, order: (
        cells["score"].outputs[0].update(text="accuracy 92.48 % after 4.5 s, trained 147,456\n"),
        cells["see"].update(source="It takes 4.5 seconds."),
    ))  # fmt: skip


def test_numbers_in_a_table_that_code_made_bind(root):
    table = {"text/html": '<table><td data-run="93.4">88.8</td></table>', "text/plain": "<HTML>"}
    cells = small_book.read(root).cells
    by_id = {cell.id: cell for cell in cells}
    by_id["teach-3"].outputs = [small_book.new_output("display_data", table)]
    by_id["see"].source = "Ours is 88.8."
    small_book.write(root / "book" / "01_a.ipynb", cells)
    assert found(root) == []
    breaks(root, "numbers", "'93.4'", set_source("see", "Ours is 93.4."))  # in an attribute, where nobody reads it


def test_a_changed_record_asks_for_its_sentence_to_be_read_again(root):
    breaks(root, "numbers", "'92.5 %'", lambda c, o: c["score"].outputs[0].update(text="accuracy 92.61 %, trained 147,456\n"))
    breaks(root, "numbers", "loss fixes it only", set_tags("loss", "tolerance-2e-2"))


def test_pages_without_cells_say_what_the_chapters_they_link_to_print(root):
    page, score = root / "book" / "page.md", "[chapter 1](01_a.ipynb#score)"
    page.write_text(f"| a row with 11.1 and no link |\n| it gets 92.5 % right | {score} |\n| 147,456 | {score} |\n")
    assert found(root) == []
    page.write_text(f"| it gets 92.6 % right | {score} |\n| 92.5 | [elsewhere](02_b.ipynb) |\n")
    assert [rule for rule, line in found(root)] == ["numbers of pages"]
    assert "book/page.md: -: loose number '92.6 %'" in found(root)[0][1] and "the nearest is 92.48" in found(root)[0][1]


def test_a_page_may_call_a_share_a_percentage(root):
    cells = small_book.read(root).cells
    next(cell for cell in cells if cell.id == "teach-3").outputs = [small_book.new_output("stream", text="0.8123\n")]
    small_book.write(root / "book" / "01_a.ipynb", cells)
    (root / "book" / "page.md").write_text("It keeps 81.2 % ([chapter 1](01_a.ipynb)).\n")
    assert [line for _, line in found(root) if "page.md" in line] == []


def test_sentences_are_whole_whatever_the_lines(root):
    text = "One runs\nover a line {cite}`x`. Two\nends.\n- three\n  goes on\n- four\n\n| a |\n| b |"
    assert list(sentences(text)) == ["One runs over a line {cite}`x`.", "Two ends.", "- three goes on", "- four", "| a |", "| b |"]


# House words.

SAMPLES = ["The yardstick.", "Whoever reads", "numbers trained", "trained\nnumbers", "All linears", "It is hearsay", "We mended it",
           "A dearer step", "dear"]  # fmt: skip


@pytest.mark.parametrize("sample", SAMPLES)
def test_a_house_word_is_named_with_the_one_to_use(sample):
    (message,) = house_words([sample])
    assert any(message.endswith(f"write {use}") for use in INSTEAD.values())


@pytest.mark.parametrize("sample", ["amend it", "quantize_linears", "results/yardsticks.json", "yardsticks-roberta", "a dearth", "recommended"])
def test_no_other_word_and_no_name_is(sample):
    assert not list(house_words([sample]))


def test_house_words_in_a_notebook(root):
    breaks(root, "house words", "'yardstick'", set_source("see", "This is the yardstick."))
    breaks(root, "house words", "'dear'", picture_with("figure", caption="It is dear."))
    breaks(root, "house words", "'mended'", picture_with("image", alt="A line that somebody has mended there."))
    breaks(root, "house words", "'linears'", set_source("teach-3", "print(3)  # of the linears"))
    breaks(root, "house words", "'Whoever'", replace("plot", "plt.show()", "plt.title('Whoever reads')\nplt.show()"))


def test_house_words_in_files(root):
    (root / "book" / "notes.md").write_text("All linears. `linears`\n")
    (root / "lora_from_scratch" / "a.py").write_text('"""For whoever calls."""\n\nlinears = {"yardsticks": "no yardstick here"}\n')
    lines = [line for rule, line in found(root) if rule == "house words in files"]
    assert [line.partition(": -: ")[0] for line in lines] == ["book/notes.md", *["lora_from_scratch/a.py"] * 2]
    (root / "lora_from_scratch" / "finetune").mkdir()
    (root / "lora_from_scratch" / "finetune" / "corpus.py").write_text('"""Sentences."""\n\nROWS = "my dear friend"\n')
    assert len([rule for rule, _ in found(root) if rule == "house words in files"]) == 3  # data, not messages


def test_what_python_says():
    source = '"""Module."""\nx = {"key": f"a message of {x} words"}  # a comment on `code`\n%magic\n'
    assert [text.split() for text in spoken(source)] == [
        ["#", "a", "comment", "on"], ["Module."], ["a", "message", "of", "…", "words"],
    ]  # fmt: skip
