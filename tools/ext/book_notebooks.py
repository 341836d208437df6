"""Sphinx extension: the buttons for Colab and for the notebook give the reader's edition, which holds no MyST."""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.edition.write import FOLDER, write_edition  # noqa: E402  # Sphinx puts this folder alone on the path
from tools.notebook import colab_address, repository  # noqa: E402


def open_edition(app, pagename, templatename, context, doctree):
    """The theme's address for Colab is made of the branch that holds the book's own notebooks."""
    repo = repository(app.confdir)
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = colab_address(repo, f"{Path(pagename).name}.ipynb")


def bring_edition(app, error):
    if error or app.builder.name != "html":
        return
    for notebook in write_edition(Path(app.confdir), Path(app.confdir) / FOLDER):
        shutil.copy(notebook, Path(app.outdir) / "_sources" / "book")


def setup(app):
    app.connect("html-page-context", open_edition, priority=900)  # after the theme's
    app.connect("build-finished", bring_edition)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
