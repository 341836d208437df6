"""Every notebook of the reader's edition, as files."""

import shutil
from pathlib import Path

import nbformat

from tools.edition.book import read_book
from tools.edition.notebook import edition
from tools.pages import chapter_number

FOLDER = Path("_build") / "notebooks"
README = """\
# LoRA from Scratch: the notebooks

Made from [the repository's main branch]({url}), for Colab and for reading here; please change them there. The book
itself is at <{site}>.

{links}
"""


def write_edition(root: Path, folder: Path) -> list[Path]:
    """Write it into ``folder``, which holds nothing else afterwards."""
    book = read_book(root)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    links = []
    for name, source in book.notebooks.items():
        nbformat.write(edition(book, name), folder / name)
        title = source.cells[0].source.partition("\n")[0].removeprefix("# ")
        links.append(f"- [{' '.join(filter(None, (chapter_number(name), title)))}]({name})")
    text = README.format(url=book.repo.url, site=book.repo.site, links="\n".join(links))
    (folder / "README.md").write_text(text, encoding="utf-8")
    return [folder / name for name in book.notebooks]
