"""What the cheat sheet says in code runs, in both libraries, and the page prints on one sheet."""

import io
import re
from pathlib import Path

import pypdf
import torch

from lora_from_scratch.finetune import TrainConfig
from lora_from_scratch.finetune.arguments import LORA_DEFAULTS, OPEN, OPEN_FOR_TEXT
from tests.conftest import tiny_bert
from tests.site import SITE, open_page, skip_unless_ci
from tests.tiny_models import add_noise

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "cheat_sheet.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.M | re.S)
ROW = r"^\| {} \| .+ \| (.+) \| (.+) \|$"


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


def test_the_settings_of_finetune_are_its_defaults():
    def row(setting):
        return re.search(ROW.format(re.escape(setting)), PAGE, flags=re.M).groups()

    recipe = TrainConfig()
    for usual, column in ((OPEN, 0), (OPEN_FOR_TEXT, 1)):
        assert row("rank $r$")[column] == str(LORA_DEFAULTS["rank"])
        assert float(row(r"scaling $s = \alpha/r$")[column]) == usual["scaling"]
        assert float(row("learning rate")[column]) == usual["lr"]
        assert row("epochs")[column] == str(recipe.epochs)
        batch, head = row("batch; head's learning rate")[column].split("; ")
        assert int(batch) == usual["batch_size"] and head in (f"{recipe.head_lr:.0e}".replace("e-0", "e-"), "no head")
    assert f"warm-up over {100 * recipe.warmup:.0f} %" in PAGE and f"clipped at norm {recipe.clip:.0f}" in PAGE
    assert recipe.weight_decay == LORA_DEFAULTS["dropout"] == 0 and LORA_DEFAULTS["targets"] == "all-linear"


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
