"""What is printed: tables that fit, and a fault of each kind that the checks find."""

import pytest

from scripts.pdf import FAULTS, SHRINK, missing

WIDE = f"<div><table>{'<td>0.12345</td>' * 12}</table></div>"
SOUND = "<pre>short</pre><div class='math'><mjx-container>x</mjx-container></div>"
BAD = {
    "images lost": "<img src='file:///nowhere.png'>",
    "formulas not typeset": "<div class='math'>\\(x\\)</div>",
    "cut at the edge": f"<pre>{'long ' * 100}</pre>",
}


@pytest.fixture
def tab(browser):
    tab = browser.new_page(viewport={"width": 600, "height": 400})
    yield tab
    tab.context.close()


def show(tab, body):
    tab.set_content(f"<article style='width: 560px'>{body}</article>")
    return {what for what, search in FAULTS.items() if tab.evaluate(search)}


def test_every_fault_is_found(tab):
    assert show(tab, SOUND) == set() and BAD.keys() == FAULTS.keys()
    for what, body in BAD.items():
        assert show(tab, SOUND + body) == {what}


def test_a_wide_table_gets_smaller_type_until_it_fits(tab):
    assert show(tab, WIDE) == {"cut at the edge"}
    tab.evaluate(SHRINK)
    assert not any(tab.evaluate(search) for search in FAULTS.values())
    assert tab.evaluate("document.querySelector('table').style.fontSize")
    show(tab, "<table><td>narrow</td></table>")
    tab.evaluate(SHRINK)
    assert not tab.evaluate("document.querySelector('table').style.fontSize")


def test_a_chapter_that_was_not_printed_is_missing():
    text = "Contents A ﬁrst chapter A second\none\nA first\nchapter and its text"
    assert missing(["A first chapter", "A second one"], text) == ["A second one"]
