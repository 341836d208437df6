"""The reader's edition: plain Markdown with nothing of MyST left, links that lead somewhere, the book's code and outputs."""

import base64
import io
import json
import os
import re
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbconvert
import nbformat
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from tests.site import SITE, skip_unless_ci
from tools.browser import chromium
from tools.edition.book import read_book
from tools.edition.markdown import Page
from tools.edition.notebook import SOLUTIONS, TITLE
from tools.edition.tex import expand
from tools.edition.write import write_edition
from tools.notebook import KERNEL_ENV, colab_address, pictures, read, tags

ROOT = Path(__file__).resolve().parents[2]
NAMES = [path.name for path in sorted((ROOT / "book").glob("*.ipynb"))]
QUICK = "02_lora_layer.ipynb"  # runs in seconds
COMMONMARK = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def book():
    return read_book(ROOT)


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    folder = tmp_path_factory.mktemp("edition") / "notebooks"
    return {path.name: read(path) for path in write_edition(ROOT, folder)}


# Nothing of MyST is left.


def raw(nb, macros=()):
    """What a reader of plain Markdown would see of MyST, counted by kind."""
    found = Counter()
    for cell in nb.cells:
        if cell.cell_type == "code":
            found["caption in the metadata"] += "mystnb" in cell.metadata
            continue
        for token in COMMONMARK.parse(cell.source):
            if token.type == "fence":
                found["```{directive}"] += token.info.startswith("{")
            elif token.type in ("inline", "html_block"):
                text = token.content
                found["{role}`"] += len(re.findall(r"\{[\w:-]+\}`", text))
                found[":::"] += len(re.findall(r"^\s*:::", text, re.M))
                found["line that begins with {"] += len(re.findall(r"^\s*\{", text, re.M))
                found["(label) of a formula"] += len(re.findall(r"\$\$[ ]*\([\w-]+\)", text))
                found["macro"] += sum(len(re.findall(rf"\\{name}(?![A-Za-z])", text)) for name in macros)
    return Counter({kind: count for kind, count in found.items() if count})


@pytest.mark.parametrize("name", NAMES)
def test_nothing_of_myst_is_left(name, edition, book):
    assert raw(edition[name], book.macros) == Counter()


def test_the_count_sees_every_kind_in_the_books_own_notebooks(book):
    before = sum((raw(nb, book.macros) for nb in book.notebooks.values()), Counter())
    assert before.keys() == {"caption in the metadata", "```{directive}", "{role}`", ":::", "line that begins with {",
                             "(label) of a formula", "macro"}  # fmt: skip


@pytest.mark.parametrize(("source", "named"), [("{doc}`intro`", "role {doc}"), ("```{tabs} a\n```", "directive {tabs}"),
                                               ("[a](nowhere.ipynb)", "nowhere.ipynb"), ("[a](intro.ipynb#gone)", "#gone")])  # fmt: skip
def test_what_the_edition_does_not_know_is_refused_by_name(source, named, book):
    with pytest.raises(SystemExit, match=re.escape(named)):
        Page(book, "01_svd.ipynb").text(source)


@pytest.mark.parametrize(("tex", "plain"), [
    (r"$\norm{W - \sum_{i}u_i}_F^2 \in \R$", r"$\left\lVert W - \sum_{i}u_i \right\rVert_F^2 \in \mathbb{R}$"),
    (r"$\norm{\norm{a}}$", r"$\left\lVert \left\lVert a \right\rVert \right\rVert$"),
    (r"$\norm x + \Rightarrow$", r"$\left\lVert x \right\rVert + \Rightarrow$"),
])  # fmt: skip
def test_macros_are_written_out(tex, plain, book):
    assert expand(tex, book.macros) == plain


def test_a_box_is_a_quote_whose_formulas_hold_no_mark_of_it(book):
    text = Page(book, "01_svd.ipynb").text(":::{admonition} A title\n:class: tip\nWith $a\n+ b$ and\na `$`.\n:::")
    assert text == "> **A title**\n>\n> With $a + b$ and\n> a `$`."


def test_code_that_looks_like_myst_stays(book):
    for code in ("````\n```{exercise} A\n:label: ex-a\n```\n````", "Write `` {numref}`fig-a` `` for it, or `:::`."):
        assert Page(book, "01_svd.ipynb").text(code) == code


# Code and outputs are the book's.


def fingerprints(nb):
    """One hash for each cell of code with its outputs; the edition's own title line and alternative texts aside."""
    found = []
    for cell in nb.cells:
        if cell.cell_type == "code":
            first, _, rest = cell.source.partition("\n")
            outputs = [{**output, "metadata": {}} if "metadata" in output else output for output in cell.outputs]
            what = [cell.id, rest if first.startswith(TITLE) else cell.source, cell.execution_count, outputs, sorted(tags(cell))]
            found.append(sha256(json.dumps(what, sort_keys=True).encode()).hexdigest())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_code_and_outputs_are_the_books(name, edition, book):
    assert fingerprints(edition[name]) == fingerprints(book.notebooks[name])


@pytest.mark.parametrize("name", NAMES)
def test_set_up_and_solutions_are_folded_and_solutions_come_last(name, edition):
    nb = edition[name]
    nbformat.validate(nb)
    kinds = [kind for cell in nb.cells for kind in ("set-up", "exercise", "solution") if kind in tags(cell)]
    assert kinds == sorted(kinds, key=["set-up", "exercise", "solution"].index)
    closed = [cell for cell in nb.cells if cell.source == SOLUTIONS]
    assert nb.metadata.colab.collapsed_sections == [cell.id for cell in closed] and len(closed) == ("solution" in kinds)
    for cell in closed:
        assert cell.metadata["jp-MarkdownHeadingCollapsed"] and cell.metadata.id == cell.id
        before = nb.cells[: nb.cells.index(cell)]
        assert not any("solution" in tags(c) for c in before)
    for cell in nb.cells:
        if tags(cell) & {"set-up", "solution", "hide-input"}:
            assert cell.source.startswith(TITLE) and cell.metadata.cellView == "form" and cell.metadata.jupyter.source_hidden
    numbers = [cell.source.split("\n")[0].removeprefix(f"{TITLE}Solution to exercise ") for cell in nb.cells if "solution" in tags(cell)]
    assert numbers == sorted(numbers, key=lambda n: int(n.split(".")[1]))


# Links and pictures work from the notebook alone.


class Html(HTMLParser):
    def __init__(self, nb):
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        for cell in nb.cells:
            if cell.cell_type == "markdown":
                self.feed(COMMONMARK.render(cell.source))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs["id"]} & {attrs.get("name")} if tag == "a" and "id" in attrs else set()
        self.links += [unquote(attrs["href"])] if "href" in attrs else []
        self.pictures += [attrs] if tag == "img" else []


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name, edition, book):
    page = Html(edition[name])
    on_colab = {colab_address(book.repo, other): {cell.metadata.get("id") for cell in nb.cells} for other, nb in edition.items()}
    for link in page.links:
        assert re.match(r"https?://|#", link), f"leads nowhere from a notebook alone: {link}"
        place, _, anchor = link.partition("#")
        if not place:
            assert anchor in page.anchors, link
        elif "colab.research" in link:
            assert not anchor or anchor.removeprefix("scrollTo=") in on_colab[place], link
        elif book.repo.slug in link and "/blob/" in link:
            assert (ROOT / link.partition(f"/blob/{book.repo.branch}/")[2]).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_links_to_the_site_find_their_place_there(name, edition, book):
    if not SITE.exists():
        skip_unless_ci(f"no pages in {SITE}: build them with make book")
    for link in Html(edition[name]).links:
        if link.startswith(book.repo.site):
            path, _, anchor = link.removeprefix(book.repo.site).partition("#")
            text = (SITE / path.strip("/")).read_text(encoding="utf-8")
            assert not anchor or f'id="{anchor}"' in text, link


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_the_sites(name, book):
    page = SITE / "book" / name.replace(".ipynb", ".html")
    if not page.exists():
        skip_unless_ci(f"no {page}: build it with make book")
    text = page.read_text(encoding="utf-8")
    here = dict(re.findall(r'id="((?:fig|ex)-[\w-]+)"(?:(?!id=").)*?caption-number">([^<]+?) ?</span>', text, re.S))
    here |= {label: f"({n})" for label, n in re.findall(r'id="equation-([\w-]+)">\s*<span class="eqno">\(([\w.]+)\)', text)}
    own = Page(book, name)
    labels = {found for cell in book.notebooks[name].cells for found in [
        *re.findall(r"^:label: (ex-\S+)|^\$\$ \((\S+)\)", cell.source, re.M), (cell.metadata.get("mystnb", {}).get("figure", {}).get("name", ""),)]}  # fmt: skip
    assert here == {label: own.book.labels[label].name for found in labels for label in found if label}


@pytest.mark.parametrize("name", NAMES)
def test_pictures_need_no_other_file_and_say_what_they_show(name, edition):
    for picture in Html(edition[name]).pictures:
        assert picture["alt"]
        if chromium() is None:
            skip_unless_ci("no Chromium, so pictures are given by their address on the site")
        kind, _, data = picture["src"].partition(",")
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).width == 2 * int(picture["width"])
    for cell in edition[name].cells:
        for output in pictures(cell) if cell.cell_type == "code" else []:
            assert len(output.metadata["image/png"]["alt"]) > 20, cell.id


def test_citations_name_authors_and_year_and_are_listed(edition):
    cells = {cell.id: cell.source for cell in edition[QUICK].cells}
    assert "([Wang et al., 2020](https://arxiv.org/abs/2002.10957); [Reimers and Gurevych, 2019](" in cells["load-text"]
    assert "[Hu et al. (2022)](https://arxiv.org/abs/2106.09685), the original paper" in cells["further"]
    listed = re.findall(r'^- <a name="(\w+)"', cells["references"], re.M)
    assert listed == sorted(listed) and {"hu2022lora", "wang2020minilm", "reimers2019sentence"} < set(listed)


# Other programs open it, and it runs.


@pytest.mark.parametrize("name", NAMES)
def test_nbconvert_opens_it(name, edition):
    # the template that shows the alternative text of outputs
    html, _ = nbconvert.HTMLExporter(template_name="classic").from_notebook_node(edition[name])
    text = re.sub(r"<(script|style|pre).*?</\1>", "", html, flags=re.S)
    assert "<h2" in text or name == "intro.ipynb"
    assert not re.search(r"\{(?:cite|numref|eq|term|doc|ref)(?::\w)?\}|:::|No description has been provided", text)


def test_a_notebook_of_the_edition_runs_in_the_books_folder(edition, monkeypatch):
    from nbclient import NotebookClient

    for variable, value in KERNEL_ENV.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    nb = edition[QUICK]
    stored = [("".join(o.get("text", "") for o in c.outputs), c.id) for c in nb.cells if "solution" in tags(c)]
    ran = NotebookClient(nb.copy(), timeout=120, resources={"metadata": {"path": str(ROOT / "book")}}).execute()
    assert [("".join(o.get("text", "") for o in c.outputs), c.id) for c in ran.cells if "solution" in tags(c)] == stored
    assert all("correct: " in said for said, _ in stored) and len(stored) == 4
