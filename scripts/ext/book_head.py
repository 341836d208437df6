"""Sphinx extension: what a page says of itself: its version, and a card for where its link is shared."""

import re
from html import escape
from pathlib import Path

import yaml

ABOUT = "Low-rank adaptation (LoRA) from its idea to a fine-tune on real data: an executable book."


def version(root):
    return re.search(r'^version = "(.+)"', (Path(root) / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def address(root):
    """Where GitHub Pages puts the site of the repository in _config.yml: a card needs whole addresses."""
    url = yaml.safe_load((Path(root) / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    owner, name = url.removeprefix("https://github.com/").split("/")
    return f"https://{owner.lower()}.github.io/{name}"


def show_version(app, config):
    config.version = config.release = version(app.confdir)
    config.html_theme_options["extra_footer"] = f"<p>Version {config.release}</p>"


def add_card(app, pagename, templatename, context, doctree):
    site, title = address(app.confdir), re.sub("<[^>]+>", "", context.get("title") or app.config.html_title)
    card = {
        "og:type": "book", "og:site_name": app.config.html_title, "og:title": title,
        "og:description": ABOUT, "og:url": f"{site}/{pagename}.html", "og:image": f"{site}/_static/card.png",
        "og:image:width": 1200, "og:image:height": 630,
        "og:image:alt": "Test accuracy of LoRA beside training everything and training the head alone.",
    }  # fmt: skip
    tags = [f'<meta property="{name}" content="{escape(str(value))}" />' for name, value in card.items()]
    tags += ['<meta name="twitter:card" content="summary_large_image" />', f'<meta name="description" content="{ABOUT}" />']
    context["metatags"] = "\n".join([context.get("metatags") or "", *tags])


def setup(app):
    app.connect("config-inited", show_version, priority=900)
    app.connect("html-page-context", add_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
