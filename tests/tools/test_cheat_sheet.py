"""What the cheat sheet says in code runs, in both libraries, and the page prints on one sheet."""

import io
import re
from pathlib import Path

import pypdf
import torch

from tests.conftest import tiny_bert
from tests.site import SITE, open_page, skip_unless_ci
from tests.tiny_models import add_noise

ROOT = Path(__file__).resolve().parents[2]
CODE = re.findall(r"^```python\n(.*?)^```$", (ROOT / "book" / "cheat_sheet.md").read_text(encoding="utf-8"), flags=re.M | re.S)


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def run(code, folder, monkeypatch):
    """How many parameters the code trains; what it merged must answer as what it trained."""
    monkeypatch.chdir(folder)
    rows, seen = torch.arange(12).view(3, 4), {}

    def train(model):
        add_noise(trainable(model), seed=7)
        seen["parameters"] = sum(p.numel() for p in trainable(model))
        seen["logits"] = model.eval()(rows).logits

    names = {"model": tiny_bert(), "base": tiny_bert(), "train": train}
    exec(code, names)
    torch.testing.assert_close(names["base"].eval()(rows).logits, seen["logits"])
    assert not torch.allclose(tiny_bert()(rows).logits, seen["logits"], atol=1e-3)
    return seen["parameters"]


def test_both_sides_train_save_load_and_merge_the_same(tmp_path, monkeypatch):
    ours, theirs = (run(code, tmp_path, monkeypatch) for code in CODE)
    assert ours == theirs


def test_it_prints_on_one_sheet(browser):
    page = SITE / "book" / "cheat_sheet.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build it with make book")
    tab = open_page(browser, page)
    tab.evaluate("() => MathJax.startup.promise")
    sheets = pypdf.PdfReader(io.BytesIO(tab.pdf(prefer_css_page_size=True))).pages
    assert len(sheets) == 1
    assert "Before you believe it" in sheets[0].extract_text()  # its last words
    assert [round(side / 72 * 25.4) for side in sheets[0].mediabox[2:]] == [210, 297]
    tab.context.close()
