"""Sphinx extension: the index of the search page, a document for each section and each term of the glossary.

The page (templates/search.html, _static/book-search.js) searches it with MiniSearch, which is a small library in
_static/vendor. The index is a script and not JSON, because a page opened as a local file may load scripts but not fetch.
"""

import json
import re
from itertools import takewhile
from pathlib import Path

from bs4 import BeautifulSoup, Tag

# A section's own text ends where the next one begins. What nobody searches for is left out.
NOT_TEXT = "section[id], script, style, .headerlink, .copybtn, .tag_set-up, .cell_input, div.math, .toggle-button"
BACK_MATTER = {"results", "verdicts", "making", "bibliography", "misconceptions", "troubleshooting"}
GREEK = {"alpha": "α", "beta": "β", "Delta": "Δ", "varepsilon": "ε", "sigma": "σ", "lambda": "λ", "pi": "π", "sqrt": "√", "cdot": "·", "times": "×"}
PRACTICE = {"Check yourself", "Exercises", "Solutions", "Further reading", "Summary", "At a glance"}


def sections(page: Path, url: str) -> list[dict]:
    """What can be found on a page: a title, the page's own, the address, the text, and how much it counts."""
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    article = soup.select_one("article.bd-article")
    heading = article and article.select_one("h1")
    if not heading:
        return []
    name, found = words(heading), []
    for section in article.select("section[id]"):
        title = section.find(["h1", "h2", "h3", "h4"], recursive=False)
        if not title:
            continue
        whole, called = title.name == "h1", words(title)
        weight = 0.4 if page.stem in BACK_MATTER or re.sub(r"^[\w.]+ ", "", called) in PRACTICE else 1
        found.append({"title": called, "page": "" if whole else name, "url": url if whole else f"{url}#{section['id']}",
                      "text": words(section, heading=False), "code": code(section), "weight": weight})  # fmt: skip
    for meaning in article.select("dl.glossary dd"):
        before = meaning.find_previous_siblings(["dd", "dt"])
        terms = list(takewhile(lambda element: element.name == "dt", before))[::-1]  # a term and its other spellings
        found.append({"title": " · ".join(map(words, terms)), "page": name, "url": f"{url}#{terms[0]['id']}", "text": words(meaning), "code": "", "weight": 0.6})
    return found


def words(element: Tag, heading: bool = True) -> str:
    """An element's text on one line, without code, other sections and what is no text; simple formulas as they're read."""
    copy = BeautifulSoup(str(element), "html.parser").find()
    for part in copy.select(NOT_TEXT if heading else f"{NOT_TEXT}, h1, h2, h3, h4"):
        part.decompose()
    text = re.sub(r"\\([A-Za-z]+)", lambda name: GREEK.get(name[1], ""), re.sub(r"\\[^A-Za-z]", "", copy.get_text()))
    return " ".join(text.split())


def code(section: Tag) -> str:
    """What a section's own cells hold, but those of its set-up."""
    cells = [cell for cell in section.select("div.cell:not(.tag_set-up) .cell_input") if cell.find_parent("section", id=True) is section]
    return " ".join(" ".join(cell.get_text() for cell in cells).split())


def write(app, error):
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    found = [entry for page in sorted((site / "book").glob("*.html")) for entry in sections(page, f"book/{page.name}")]
    script = f"window.BOOK_SECTIONS = {json.dumps(found, ensure_ascii=False, separators=(',', ':'))};\n"
    (site / "_static" / "search-index.js").write_text(script, encoding="utf-8")


def setup(app):
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
