"""Move the book to another address: python -m tools.set_repository URL

The address is kept in _config.yml. What's derived from it (links to Colab, install lines, citation) is
rewritten along with it.
"""

import re
import sys
from pathlib import Path

from tools.notebook import repository

ROOT = Path(__file__).resolve().parent.parent
DERIVED = ("README.md", "CITATION.cff", "LICENSE-text", "book/*.ipynb", "book/*.md")


def move(root, url):
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git|/)?", url)
    if not match:
        sys.exit(f"the address is {url!r}, expected https://github.com/<owner>/<name>")
    old, new = repository(root).slug, match[1]
    return _rewrite(root, lambda text: re.sub(rf"{re.escape(old)}(?![\w-])", new, text))


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


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.set_repository https://github.com/<owner>/<name>")
    print("changed:", ", ".join(move(ROOT, sys.argv[1])) or "nothing")
