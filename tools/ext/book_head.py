"""Sphinx extension: what a page says about itself: its version, the book's PDF, and a card for shared links."""

import re
import shutil
from html import escape
from pathlib import Path

import yaml

ABOUT = "Low-rank adaptation (LoRA) from its idea to a fine-tune on real data: an executable book."
PDF = "lora-from-scratch.pdf"


def version(root):
    return re.search(r'^version = "(.+)"', (Path(root) / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def address(root):
    """Where GitHub Pages puts this repository's site: a card needs whole addresses."""
    url = yaml.safe_load((Path(root) / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    owner, name = url.removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io/{name}"


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


def bring_pdf(app, failed):
    pdf = printed(app.confdir)
    if app.builder.name != "html" or failed:
        return
    if pdf:
        shutil.copy(pdf, app.outdir)
    elif (Path(app.confdir) / "_build" / PDF).exists():
        print(f"_build/{PDF} is older than the book and stays out of the site: run `make pdf` to make a new one")


def add_card(app, pagename, templatename, context, doctree):
    site, title = address(app.confdir), re.sub("<[^>]+>", "", context.get("title") or app.config.html_title)
    card = {
        "og:type": "book", "og:site_name": app.config.html_title, "og:title": title,
        "og:description": ABOUT, "og:url": f"{site}/{pagename}.html", "og:image": f"{site}/_static/card.png",
        "og:image:width": 1200, "og:image:height": 630,
        "og:image:alt": "Test accuracy of LoRA next to training everything and training the head alone.",
    }  # fmt: skip
    tags = [f'<meta property="{name}" content="{escape(str(value))}" />' for name, value in card.items()]
    tags += ['<meta name="twitter:card" content="summary_large_image" />', f'<meta name="description" content="{ABOUT}" />']
    context["metatags"] = "\n".join([context.get("metatags") or "", *tags])


def setup(app):
    app.connect("config-inited", name_version, priority=900)
    app.connect("html-page-context", show_version)
    app.connect("html-page-context", add_card)
    app.connect("build-finished", bring_pdf)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
