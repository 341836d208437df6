"""What CONTRIBUTING.md and the workflows promise holds: diffs, the form, the first cells on Colab."""

import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell

from lora_from_scratch.__main__ import main
from tools.notebook import EDITION, install_lines, read, repository

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "book").glob("*.ipynb"))


def test_a_notebooks_diff_is_its_source(tmp_path):
    def git(*words):
        return subprocess.run(["git", *words], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    (tmp_path / ".gitattributes").write_text((ROOT / ".gitattributes").read_text())
    git("config", "diff.ipynb.textconv", f"PYTHONPATH={ROOT} {sys.executable} -m tools.notebook_source")
    text = NOTEBOOKS[-1].read_text(encoding="utf-8")
    (tmp_path / "a.ipynb").write_text(text)
    git("add", "-A")
    (tmp_path / "a.ipynb").write_text(text.replace('"execution_count": 1', '"execution_count": 7'))
    assert git("diff") == ""
    (tmp_path / "a.ipynb").write_text(text.replace("import", "import  ", 1))
    changed = [line for line in git("diff", "-U0").splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert len(changed) == 2 and "import  " in changed[1]


def test_the_form_asks_for_chapter_cell_and_environment(capsys):
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "problem.yml").read_text())
    required = {part["id"] for part in form["body"] if part["validations"]["required"]}
    assert {"chapter", "cell", "env"} <= required
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("lora_from_scratch", "commit", "python", "torch", "transformers", "instructions", "gpu"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("colab", [True, False])
def test_the_first_cell_installs_on_colab_and_nowhere_else(path, colab, monkeypatch):
    """Run with a stand-in for Colab's module; what it would call is noted instead of called."""
    first = next(cell for cell in read(path).cells if cell.cell_type == "code")
    lines = install_lines(repository(ROOT))
    assert first.source.startswith(lines)
    called = []
    shell = InteractiveShell()
    monkeypatch.setattr(shell, "system", called.append)
    monkeypatch.setattr(shell, "run_line_magic", lambda name, line, **_: called.append(f"%{name} {line}"))
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    else:
        monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert shell.run_cell(lines).success
    if not colab:
        assert called == []
        return
    clone, install, move = called
    assert "git clone" in clone and f"-b {repository(ROOT).branch} {repository(ROOT).url}" in clone
    assert install == "%pip install -q /content/book" and move == "%cd -q /content/book/book"


def test_an_install_replaces_nothing_that_colab_brings():
    """Floors only: a pin or a ceiling would ask for another torch, and for a restart."""
    import tomllib

    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert asked and not [line for line in asked if any(sign in line for sign in ("==", "<", "~=", "!=", ","))]


def test_pages_are_published_at_their_own_address_and_one_job_alone_may_push():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text(encoding="utf-8"))
    jobs, said = workflow["jobs"], {name: [step.get("run", "") for step in job["steps"]] for name, job in workflow["jobs"].items()}
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if job.get("permissions", {}).get("contents") == "write"] == ["notebooks"]
    assert not any("make" in run or "python" in run for run in said["notebooks"])
    assert said["notebooks"][-1].rstrip().endswith(f"$GITHUB_REPOSITORY\" {EDITION}")
    moved, checked = (next(i for i, run in enumerate(said["build"]) if word in run) for word in ("make repository", "--check"))
    built = [i for i, run in enumerate(said["build"]) if "make pdf" in run or "make book" in run]
    uploaded = [i for i, step in enumerate(jobs["build"]["steps"]) if "upload" in step.get("uses", "")]
    assert moved < min(built) < max(built) < checked < min(uploaded)
