"""From book/chapters.yml, the one list of pages, make _toc.yml, README's table, the landing page's cards and the teacher's objectives.

python -m tools.chapters           rewrite them
python -m tools.chapters --check   only say whether they are up to date (the gate checks this too)
"""

import sys
from pathlib import Path

import yaml

from tools.landing import landing_page
from tools.notebook import colab_link, repository
from tools.pages import chapter_number, title
from tools.teaching import teaching_page

ROOT = Path(__file__).resolve().parent.parent
LIST = "book/chapters.yml"
BEGIN, END = "<!-- chapters: made by `python -m tools.chapters` -->\n", "<!-- end of chapters -->"


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
            name = " ".join(filter(None, (chapter_number(page), title(path))))
            rows.append(f"| {name} | {colab_link(repo, path.name)} |")
    text = (root / "README.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    if not begin or END not in rest:
        sys.exit(f"README.md has no place for the table of chapters: expected {BEGIN.strip()} … {END}")
    return before + begin + "\n".join(rows) + "\n" + rest[rest.index(END) :]


def outdated(root: Path) -> dict[Path, str]:
    """The files that disagree with the list, each with the text that it should have."""
    contents = listed(root)
    made = {root / "_toc.yml": toc(root), root / "README.md": readme(root)}
    landing = root / "book" / f"{contents['root']}.ipynb"
    if contents.get("answers"):
        made[landing] = landing_page(landing, contents)
    if "teaching" in pages(root):
        made[root / "book" / "teaching.md"] = teaching_page(root / "book" / "teaching.md", contents)
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
