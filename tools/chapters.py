"""From book/chapters.yml, the one list of pages, make _toc.yml and README's table.

python -m tools.chapters           rewrite them
python -m tools.chapters --check   only say whether they are up to date (the gate checks this too)
"""

import re
import sys
from pathlib import Path

import nbformat
import yaml

from tools.notebook import colab_link, repository

ROOT = Path(__file__).resolve().parent.parent
LIST = "book/chapters.yml"
BEGIN, END = "<!-- chapters: made by `python -m tools.chapters` -->\n", "<!-- end of chapters -->"


def chapter_number(name: str) -> str | None:
    """What a chapter is called by, from its file's name: "2" for 02_lora_layer, "A1" for a1_tiny_adapters."""
    match = re.match(r"(?:0*(\d+)|([a-z]\d+))_", name)
    return match and (match[1] or match[2].upper())


def listed(root: Path) -> dict:
    return yaml.safe_load((root / LIST).read_text(encoding="utf-8"))


def pages(root: Path) -> list[str]:
    """Every page's name, in reading order."""
    contents = listed(root)
    return [contents["root"], *(page for part in contents["parts"] for page in part["pages"])]


def toc(root: Path) -> str:
    contents = listed(root)
    lines = [f"# Made from {LIST} by `python -m tools.chapters`.", "format: jb-book", f"root: book/{contents['root']}"]
    lines += ["defaults:", "  numbered: 2", "parts:"]
    for part in contents["parts"]:
        lines.append(f"  - caption: {part['caption']}")
        if not any(map(chapter_number, part["pages"])):
            lines.append("    numbered: false")
        lines += ["    chapters:", *(f"      - file: book/{page}" for page in part["pages"])]
    return "\n".join(lines) + "\n"


def readme(root: Path) -> str:
    """README with its table of notebooks, each by the title in its first line."""
    repo, rows = repository(root), ["| chapter | on Colab |", "|---|---|"]
    for page in pages(root):
        path = root / "book" / f"{page}.ipynb"
        if path.exists():
            heading = nbformat.read(path, as_version=4).cells[0].source.partition("\n")[0].removeprefix("# ")
            name = " ".join(filter(None, (chapter_number(page), heading)))
            rows.append(f"| {name} | {colab_link(repo, path.name)} |")
    text = (root / "README.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    if not begin or END not in rest:
        sys.exit(f"README.md has no place for the table of chapters: expected {BEGIN.strip()} … {END}")
    return before + begin + "\n".join(rows) + "\n" + rest[rest.index(END) :]


def outdated(root: Path) -> dict[Path, str]:
    """The files that disagree with the list, each with the text that it should have."""
    made = {root / "_toc.yml": toc(root), root / "README.md": readme(root)}
    return {path: text for path, text in made.items() if path.read_text(encoding="utf-8") != text}


def main():
    stale = outdated(ROOT)
    if "--check" in sys.argv[1:]:
        sys.exit(f"not up to date: {', '.join(p.name for p in stale)}; run python -m tools.chapters" if stale else 0)
    for path, text in stale.items():
        path.write_text(text, encoding="utf-8")
    print("rewritten:", ", ".join(path.name for path in stale) or "nothing")


if __name__ == "__main__":
    main()
