"""Move the book to another address: python -m tools.set_repository URL

The address is kept in _config.yml. What's derived from it (links to Colab and to the site, install lines, citation)
is rewritten along with it.

python -m tools.set_repository --check FOLDER...    fails where what is to be published still has no real address
"""

import re
import sys
from pathlib import Path

from tools.notebook import pages_site, repository

ROOT = Path(__file__).resolve().parent.parent
NOBODY = "OWNER"  # who owns the repository until it has an address
DERIVED = ("README.md", "CITATION.cff", "LICENSE-text", "book/*.ipynb", "book/*.md")
TEXT = {".html", ".ipynb", ".js", ".md", ".txt", ".xml"}


def move(root, url):
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git|/)?", url)
    if not match:
        sys.exit(f"the address is {url!r}, expected https://github.com/<owner>/<name>")
    old = repository(root)
    places = {old.slug: match[1], old.site: pages_site(match[1])}

    def change(text):
        for place, moved in places.items():
            text = re.sub(rf"{re.escape(place)}(?![\w-])", moved, text)
        return text

    return _rewrite(root, change)


def without_address(folder):
    """The files below ``folder`` with a link to nobody's repository or site."""
    if not folder.is_dir():
        sys.exit(f"there's no folder {folder} to check")
    link = re.compile(rf"(?:github(?:\.com)?/|//){NOBODY}(?:/|\.github\.io)", re.I)
    text = (path for path in sorted(folder.rglob("*")) if path.suffix in TEXT)
    return [path for path in text if link.search(path.read_text(encoding="utf-8"))]


def name_ref(root, ref):
    """Let links into the repository and install lines name another branch or tag, as a release does."""
    repo = repository(root)
    slug, old = re.escape(repo.slug), re.escape(repo.branch)
    places = (rf"(?m)^(  branch: ){old}$", rf"({slug}/blob/){old}(?=/)", rf"( -b ){old}(?= https://github\.com/{slug})")

    def change(text):
        for place in places:
            text = re.sub(place, rf"\g<1>{ref}", text)
        return text

    return _rewrite(root, change)


def _rewrite(root, change):
    changed = []
    for path in [root / "_config.yml", *(p for glob in DERIVED for p in sorted(root.glob(glob)))]:
        text = path.read_text(encoding="utf-8")
        if (new := change(text)) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(str(path.relative_to(root)))
    return changed


def main():
    words = sys.argv[1:]
    if words[:1] == ["--check"]:
        left = [str(path) for folder in words[1:] for path in without_address(Path(folder))]
        sys.exit(f"{len(left)} files name {NOBODY} as the repository's owner, so their links lead nowhere: {', '.join(left[:5])} …; "
                 "run make repository URL=… first" if left else 0)  # fmt: skip
    if len(words) != 1:
        sys.exit("usage: python -m tools.set_repository https://github.com/<owner>/<name>")
    print("changed:", ", ".join(move(ROOT, words[0])) or "nothing")


if __name__ == "__main__":
    main()
