"""Sphinx extension: a page weighs no more than its reader needs.

It changes the finished site in _build/ only; notebooks keep their pictures as they are.
"""

import re
from pathlib import Path

from fontTools import subset
from PIL import Image

LARGE = 100_000  # bytes: a picture that stays larger than this without loss is a photograph


def finish(app, error):
    if error or app.builder.name != "html":
        return
    site = Path(app.outdir)
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    names = lighter_pictures(site / "_images")
    for path, text in pages.items():
        # A script of 1.5 MB that draws every icon there is; the theme's style sheet draws them with fonts anyway.
        text = re.sub(r'<script src="[^"]*/fontawesome\.js[^"]*"></script>', "", text)
        path.write_text(re.sub(r"[0-9a-f]{64}\.png", lambda name: names.get(name[0], name[0]), text), encoding="utf-8")
    fewer_icons(site / "_static", " ".join(pages.values()))


def lighter_pictures(folder: Path) -> dict[str, str]:
    """Turn cells' PNG pictures into WebP, without loss or, for a photograph, without visible loss. Returns new names by old."""
    names = {}
    for png in sorted(folder.glob("*.png")):
        webp = png.with_suffix(".webp")
        with Image.open(png) as picture:
            picture.save(webp, lossless=True, quality=100, method=4)
            if webp.stat().st_size > LARGE:
                picture.save(webp, quality=75, method=4)
        if webp.stat().st_size < png.stat().st_size:
            png.unlink()
            names[png.name] = webp.name
        else:
            webp.unlink()
    return names


def fewer_icons(static: Path, text: str) -> None:
    """Keep only those icons in the fonts that pages, scripts and styles name."""
    css = "".join(path.read_text(encoding="utf-8") for path in sorted((static / "styles").glob("*.css")))
    icon = re.compile(r'((?:\.fa-[\w-]+:before,?)+)\{content:"\\([0-9a-f]+)"\}')
    text += "".join(path.read_text(encoding="utf-8") for path in (static / "tools").glob("*theme.js"))
    named = set(re.findall(r"fa-[\w-]+", text))
    codes = {code for rule, code in icon.findall(css) if named & set(re.findall(r"fa-[\w-]+", rule))}
    rest = icon.sub("", css)
    codes |= set(re.findall(r"\\([ef][0-9a-f]{3})", rest))
    codes |= {f"{ord(sign):x}" for sign in rest if "\ue000" <= sign <= "\uf8ff"}  # the theme's own styles name no codes
    for path in static.glob("vendor/fontawesome/webfonts/*.woff2"):
        options = subset.Options(flavor="woff2")
        font = subset.load_font(path, options)
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=[int(code, 16) for code in codes])
        subsetter.subset(font)
        subset.save_font(font, path, options)


def setup(app):
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
