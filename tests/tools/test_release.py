"""A release: what it refuses, that links and install lines name its tag, what the archive holds."""

import subprocess
import zipfile

import pytest

from tests.tools import small_book
from tools.gate.book import load
from tools.gate.rules import problems
from tools.notebook import repository
from tools.release import copy_of_commit, pack, refusals
from tools.set_repository import move, name_ref

CHANGES, CITATION = "# Changes\n\n## 1.2.0, 2026-11-25\n", "version: 1.2.0\n"


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    small_book.build(root)
    move(root, "https://github.com/you/lora-from-scratch")
    for name, text in (("pyproject.toml", 'version = "1.2.0"\n'), ("CHANGELOG.md", CHANGES), ("CITATION.cff", CITATION)):
        (root / name).write_text(text)
    git(root, "init", "-q")
    commit(root)
    return root


def git(root, *words):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


def commit(root):
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "state")


@pytest.mark.parametrize(
    ("name", "text", "refusal"),
    [
        ("CHANGELOG.md", CHANGES.replace("2026-11-25", "not yet released"), "has no heading '## 1.2.0, "),
        ("CHANGELOG.md", CHANGES.replace("1.2.0", "1.1.0"), "has no heading '## 1.2.0, "),
        ("CITATION.cff", CITATION.replace("1.2", "1.1"), "CITATION.cff is of version 1.1.0, pyproject.toml of 1.2.0"),
    ],
)
def test_a_release_is_refused(root, name, text, refusal):
    assert list(refusals(root)) == []
    (root / name).write_text(text)
    dirty, other = refusals(root)
    assert "the tree is not clean" in dirty and name in dirty and refusal in other
    commit(root)
    (left,) = refusals(root)
    assert refusal in left


def test_a_release_without_an_address_is_refused(root):
    move(root, "https://github.com/OWNER/lora-from-scratch")
    commit(root)
    (refusal,) = refusals(root)
    assert "no address yet" in refusal


def test_links_and_install_lines_name_the_tag(root, tmp_path):
    (root / "README.md").write_text((root / "README.md").read_text() + "the main idea, -b main\n")
    commit(root)
    (root / "later.txt").write_text("not in the copy")
    copy = copy_of_commit(root, tmp_path)
    assert not (copy / "later.txt").exists()
    assert set(name_ref(copy, "v1.2.0")) == {"_config.yml", "book/01_a.ipynb", "book/intro.ipynb"}
    assert repository(copy).branch == "v1.2.0"
    assert list(problems(load(copy))) == []  # the gate derives links and install lines from _config.yml
    assert "the main idea, -b main\n" in (copy / "README.md").read_text()
    notebook = (copy / "book" / "01_a.ipynb").read_text()
    assert " -b v1.2.0 https://" in notebook and "/blob/notebooks/01_a.ipynb" in notebook


def test_the_archive_holds_site_pdf_notebooks_and_licenses(root, tmp_path):
    for name in ("_build/html/book/intro.html", "_build/lora-from-scratch.pdf", "_build/notebooks/01_a.ipynb",
                 "_build/notebooks/README.md", "LICENSE", "LICENSE-text"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    pack(root, tmp_path / "build" / "book-1.2.0.zip")
    with zipfile.ZipFile(tmp_path / "build" / "book-1.2.0.zip") as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    wanted = ("site/book/intro.html", "lora-from-scratch.pdf", "notebooks/01_a.ipynb",
              "LICENSE", "LICENSE-text")  # fmt: skip
    assert names == {f"book-1.2.0/{name}" for name in wanted}
