"""What is printed: tables that fit, and a fault of each kind that the checks find."""

import os
from types import SimpleNamespace

import pytest

from tools.ext.book_head import PDF, bring_pdf, printed, show_version
from tools.pdf import FAULTS, SHRINK, missing

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


def test_the_site_takes_no_pdf_older_than_its_pages(tmp_path, capsys):
    page, pdf = tmp_path / "book" / "intro.ipynb", tmp_path / "_build" / PDF
    for path in (page, pdf):
        path.parent.mkdir()
        path.touch()
    os.utime(page, (100, 100))
    site = tmp_path / "site"
    site.mkdir()
    app = SimpleNamespace(confdir=tmp_path, outdir=site, config=SimpleNamespace(release="1"), builder=SimpleNamespace(name="html"))

    def footer():
        context = {"pathto": lambda name, resource: f"../{name}"}
        show_version(app, "book/intro", "page.html", context, None)
        bring_pdf(app, None)
        return context["theme_extra_footer"]

    os.utime(pdf, (50, 50))
    assert printed(tmp_path) is None and footer() == "<p>Version 1</p>" and "stays out of the site" in capsys.readouterr().out
    assert not (site / PDF).exists()
    os.utime(pdf, (200, 200))
    assert printed(tmp_path) == pdf and f'href="../{PDF}"' in footer() and (site / PDF).exists()
    pdf.unlink()
    assert printed(tmp_path) is None and footer() == "<p>Version 1</p>" and not capsys.readouterr().out
