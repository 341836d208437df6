"""Sphinx extension: what the site needs at its address: a first page, the list of pages for search engines, a page for dead links."""

import posixpath
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tools.notebook import repository  # noqa: E402  # Sphinx puts this folder alone on the path

RELATIVE = re.compile(r'(?<=[\s"])(href|src|action|data-content_root)="(?![a-z]+:|#|/|")([^"]*)"')
SITEMAP = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{}\n</urlset>\n'


def name_address(app, config):
    config.html_baseurl = f"{repository(app.confdir).site}/"  # from which Sphinx derives each page's canonical address


def name_first_page(app, pagename, templatename, context, doctree):
    """The landing page is also the site's first page, and that address is the one to remember."""
    if pagename == app.config.root_doc:
        context["pageurl"] = app.config.html_baseurl


def finish(app, error):
    if error or app.builder.name != "html":
        return
    site, root, first = Path(app.outdir), app.config.html_baseurl, app.config.root_doc
    page = (site / f"{first}.html").read_text(encoding="utf-8")
    # Written before jupyter-book looks, which would send browsers on from an empty page.
    (site / "index.html").write_text(at_the_top(page, posixpath.dirname(first)), encoding="utf-8")
    pages = [root if name == first else f"{root}{name}.html" for name in sorted(app.env.found_docs)]
    (site / "sitemap.xml").write_text(SITEMAP.format("\n".join(f"<url><loc>{url}</loc></url>" for url in pages)), encoding="utf-8")
    (site / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {root}sitemap.xml\n", encoding="utf-8")
    # Served for any address, so its links are whole and it needs no other file.
    missing = Path(__file__).with_name("404.html").read_text(encoding="utf-8")
    (site / "404.html").write_text(missing.format(book=app.config.html_title, site=root.rstrip("/")), encoding="utf-8")


def at_the_top(page: str, folder: str) -> str:
    """A page of ``folder``, as it has to be written one level up."""

    def moved(found):
        kind, (path, mark, rest) = found[1], re.match(r"([^?#]*)([?#]?)(.*)", found[2]).groups()
        whole = posixpath.normpath(posixpath.join(folder, path))
        return f'{kind}="{"./" if kind == "data-content_root" else whole}{mark}{rest}"'

    return RELATIVE.sub(moved, page)


def setup(app):
    app.connect("config-inited", name_address, priority=900)
    app.connect("html-page-context", name_first_page, priority=400)  # before the card
    app.connect("build-finished", finish, priority=400)  # before pictures become lighter, on this page, too
    return {"parallel_read_safe": True, "parallel_write_safe": True}
