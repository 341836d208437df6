"""Sphinx extension: what a page says about itself: title, description, version, PDF, licence, how to cite and edit it, a card for shared links."""

import re
import shutil
import sys
import textwrap
from html import escape, unescape
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.notebook import repository  # noqa: E402  # Sphinx puts this folder alone on the path

ABOUT = "Low-rank adaptation (LoRA) from its idea to a fine-tune on real data: an executable book."
PDF = "lora-from-scratch.pdf"
SHORTEST, LONGEST = 60, 200  # characters of a description: search engines show fewer


def version(root):
    return re.search(r'^version = "(.+)"', (Path(root) / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def printed(root):
    """What `make pdf` made, if no page of the book has changed since; else None."""
    pdf = Path(root) / "_build" / PDF
    pages = [path for kind in ("*.ipynb", "*.md") for path in (Path(root) / "book").glob(kind)]
    return pdf if pdf.exists() and pdf.stat().st_mtime > max(path.stat().st_mtime for path in pages) else None


def name_version(app, config):
    config.version = config.release = version(app.confdir)


def show_version(app, pagename, templatename, context, doctree):
    said, pdf = f"Version {app.config.release}", printed(app.confdir)
    if pdf and app.builder.name == "html":
        said += f' · <a href="{context["pathto"](PDF, resource=True)}">the whole book as PDF</a>, {pdf.stat().st_size / 1e6:.0f} MB'
    context["theme_extra_footer"] = f"<p>{said}</p>"


def show_origin(app, pagename, templatename, context, doctree):
    """Below the version: how to cite the book and to edit the page, and the licences."""
    home = repository(app.confdir).url
    links = [f'<a href="{home}/blob/main/CITATION.cff">cite it</a>']
    if pagename in app.env.found_docs:
        links.append(f'<a href="{home}/edit/main/{app.env.doc2path(pagename, False)}">edit this page</a>')
    licences = f'Text: <a href="{home}/blob/main/LICENSE-text">CC BY 4.0</a>. Code: <a href="{home}/blob/main/LICENSE">Apache 2.0</a>.'
    context["theme_extra_footer"] += f"<p>{' · '.join(links)}</p><p>{licences}</p>"


def bring_pdf(app, failed):
    pdf = printed(app.confdir)
    if app.builder.name != "html" or failed:
        return
    if pdf:
        shutil.copy(pdf, app.outdir)
    elif (Path(app.confdir) / "_build" / PDF).exists():
        print(f"_build/{PDF} is older than the book and stays out of the site: run `make pdf` to make a new one")


def lead(doctree):
    """The first sentences of a page, as many as fit, or else its first words; None where it has none."""
    for paragraph in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(paragraph.astext().split())
        if isinstance(paragraph.parent, nodes.section) and text != "Open in Colab":
            fitting = re.match(rf".{{{SHORTEST},{LONGEST - 1}}}[.?!](?= |$)", text)
            return fitting[0] if fitting else textwrap.shorten(text, LONGEST, placeholder=" …")
    return None


def describe(app, pagename, templatename, context, doctree):
    book = app.config.html_title
    title = re.sub(r"^(?:\d+|[A-Z]\d+)\. ", "", re.sub("<[^>]+>", "", context.get("title") or book))
    title, about = escape(unescape(title)), escape(lead(doctree) or ABOUT)
    context["head_title"] = title if title == book else f"{title} · {book}"
    tags = [f'<meta name="description" content="{about}" />']
    if context.get("pageurl"):
        image = f"{app.config.html_baseurl}_static/card.png"
        card = {
            "og:type": "book", "og:site_name": book, "og:title": title, "og:description": about, "og:url": context["pageurl"],
            "og:image": image, "og:image:width": 1200, "og:image:height": 630,
            "og:image:alt": "Test accuracy of LoRA next to training everything and training the head alone.",
        }  # fmt: skip
        tags += [f'<meta property="{name}" content="{value}" />' for name, value in card.items()]
        tags.append('<meta name="twitter:card" content="summary_large_image" />')
    # Docutils writes a viewport, too; the template drops the theme's.
    others = re.sub(r'<meta name="viewport"[^>]*>\s*', "", context.get("metatags") or "")
    context["metatags"] = "\n".join([others, *tags])


def setup(app):
    app.connect("config-inited", name_version, priority=900)
    app.connect("html-page-context", show_version)
    app.connect("html-page-context", show_origin)
    app.connect("html-page-context", describe)
    app.connect("build-finished", bring_pdf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
