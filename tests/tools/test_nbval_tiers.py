"""The nbval plugin on tiny notebooks: what passes, what fails, and what it says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import ledger

ROOT = Path(__file__).resolve().parents[2]
PICTURE = "iVBORw0KGgo="


def cell(source, printed=None, tags=(), picture=False):
    outputs = [new_output("stream", text=printed)] if printed is not None else []
    if picture:
        outputs.append(new_output("display_data", {"image/png": PICTURE, "text/plain": "<Figure>"}))
    return new_code_cell(source, outputs=outputs, metadata={"tags": list(tags)})


@pytest.fixture
def run(tmp_path):
    """Run notebooks given as {name: cells} under the plugin; (exit status, what it printed)."""

    def run(notebooks, *options, **env):
        for name, cells in notebooks.items():
            for count, c in enumerate(cells, 1):
                c.execution_count = count
            nbformat.write(new_notebook(cells=cells), tmp_path / name)
        command = [
            sys.executable, "-m", "pytest", "-p", "tools.nbval_tiers", "-p", "no:cacheprovider",
            "--nbval", "--nbval-current-env", "--rootdir", str(tmp_path),
            "--nbval-sanitize-with", str(ROOT / "tools/nbval_sanitize.cfg"), *options, str(tmp_path),
        ]  # fmt: skip
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "NBVAL"))}
        inherited.pop("EMOTION_DATA_DIR", None)
        done = subprocess.run(
            command, cwd=ROOT, env=inherited | env, capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_tiers_that_hold(run, tmp_path):
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "test_slow.py").write_text("import time\n\n\ndef test():\n    time.sleep(0.2)\n")
    status, text = run(
        {
            "01_a.ipynb": [
                cell("print('loss 0.50001 after 1.5 s on cpu')", "loss 0.50001 after 9 s on cuda:0\n"),
                *(cell(f"print({i})", f"{i}\n") for i in range(7)),
                cell("print('loss 0.5004 in 2 s')", "loss 0.5001 in 3 s\n", ["tolerance-1e-3"]),
                cell("print(1); assert True", "2\n", ["nbval-ignore-output"]),
            ],
            "02_b.ipynb": [
                cell("from IPython.display import Image, display\nimport base64"),
                cell(
                    f"data = {{'image/png': '{PICTURE}', 'text/plain': '<Figure>'}}\n"
                    "display(data, raw=True)",
                    picture=True,
                ),
                *(cell(f"print({i})", f"{i}\n") for i in range(4)),
                cell("print('here')", "on the real data\n", ["real-data"]),
            ],
        },
        "-n2", "--dist", "loadfile", "--no-loadscope-reorder", "--ledger", str(tmp_path / "ledger.json"),
    )  # fmt: skip
    assert status == 0, text
    written = ledger.read(tmp_path / "ledger.json")
    assert written["notebooks"].keys() == {"01_a", "02_b"} and all(written["notebooks"].values())
    assert written["rooms"].keys() == {"core"} and written["rooms"]["core"] >= 0.2
    assert "01_a.ipynb: 10 cells, 8 exact, 1 tolerant, 1 ignored, 0 figures" in text
    assert "02_b.ipynb: 7 cells, 5 exact, 0 tolerant, 0 ignored, 1 figures (pixels not" in text
    assert "book: 86.7% exact, 6.7% ignored" in text
    assert "real-data: 1 cells ran, their outputs were not compared: EMOTION_DATA_DIR is not" in text


def test_what_differs_fails_and_is_named(run):
    status, text = run(
        {
            "01_a.ipynb": [
                cell("print(0.5001)", "0.5002\n"),
                cell("print('a 0.51')", "a 0.50\n", ["tolerance-1e-3"]),
                cell("print('b 0.50')", "a 0.50\n", ["tolerance-1e-3"]),
            ],
            "02_b.ipynb": [
                cell("x = 1"),
                cell("# a comment\nraise ValueError('no')"),
                cell("print(x)", "1\n"),
            ],
        },
        "-rfs",
    )
    assert status == 1
    assert "4 failed, 1 passed, 1 skipped" in text
    assert "Cell outputs differ" in text
    assert "Cell execution caused an exception" in text and "raise ValueError('no')" in text
    assert "Cell 1 of this notebook failed" in text


def test_budgets_fail_the_run(run):
    cells = [cell("print(1)", "1\n"), cell("print(1); assert 1", "2\n", ["nbval-ignore-output"])]
    status, text = run({"01_a.ipynb": cells}, NBVAL_TIME_FACTOR="1e-6")
    assert status == 1 and "2 passed" in text
    assert "BUDGET: 50.0% of the outputs are exact, at least 85%" in text
    assert "BUDGET: 50.0% of the outputs are ignored, at most 10%" in text
    assert "s of kernel time, at most 0 s" in text


@pytest.mark.parametrize("rows", [None, [{"text": "something else", "label": 0}], ["broken"]])
def test_other_data_is_not_the_real_data(tmp_path, monkeypatch, rows):
    from tools.nbval_tiers import why_not_compared

    for split in ("train", "validation", "test") if rows else ():
        text = "".join(json.dumps(row) + "\n" if row != "broken" else "{" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    monkeypatch.setenv("EMOTION_DATA_DIR", str(tmp_path))
    why_not_compared.cache_clear()
    assert why_not_compared().startswith("EMOTION_DATA_DIR")
    why_not_compared.cache_clear()
