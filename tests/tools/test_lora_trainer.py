"""The trainer of chapter 2: it computes what the package's layer does, and it can be played with by keyboard alone."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from lora_from_scratch import LoRALinear
from tests.site import SITE, open_page, skip_unless_ci

STATIC = Path(__file__).resolve().parents[2] / "book" / "_static"
MATH = STATIC / "lora-trainer-math.js"
RUN = """([options, rate, steps]) => {
  const trainer = new LoraTrainer(options), start = {A: trainer.A, B: trainer.B}, looks = [];
  for (let step = 0; step <= steps; step++) {
    looks.push({loss: trainer.loss(), gradients: trainer.gradients()});
    trainer.descend(rate);
  }
  return {E: trainer.E, start, looks, A: trainer.A, B: trainer.B, delta: trainer.delta(),
          values: LoraTrainer.singularValues(trainer.delta()), floor: trainer.floor(), left: trainer.left, exploded: trainer.exploded};
}"""


def float64(rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(scope="module")
def math(browser):
    tab = browser.new_context().new_page()
    tab.add_script_tag(path=MATH)
    yield lambda rank, alpha, zero="B", rate=0.01, steps=20: tab.evaluate(RUN, [{"rank": rank, "alpha": alpha, "zero": zero}, rate, steps])
    tab.context.close()


@pytest.mark.parametrize(("rank", "alpha", "zero"), [(1, 2, "B"), (3, 8, "B"), (8, 4, "A"), (2, 4, "neither")])
def test_it_trains_as_the_fused_layer_does(math, rank, alpha, zero):
    page = math(rank, alpha, zero)
    E = float64(page["E"])
    base = nn.Linear(*E.shape[::-1], bias=False).double().requires_grad_(False)
    nn.init.zeros_(base.weight)
    layer = LoRALinear(base, r=rank, alpha=alpha)
    A, B = layer.factors()
    A.data, B.data = float64(page["start"]["A"]), float64(page["start"]["B"])
    optimiser = torch.optim.SGD([A, B], lr=0.01)
    for step, look in enumerate(page["looks"]):
        y = layer(torch.eye(len(E), dtype=torch.float64))
        assert "FusedLoRA" in type(y.grad_fn).__name__
        loss = (y - E.T).square().sum()
        optimiser.zero_grad()
        loss.backward()
        assert look["loss"] == pytest.approx(loss.item(), rel=1e-6), step
        torch.testing.assert_close(float64(look["gradients"]["A"]), A.grad, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(float64(look["gradients"]["B"]), B.grad, rtol=1e-6, atol=1e-6)
        optimiser.step()
    torch.testing.assert_close(float64(page["A"]), A.data, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(float64(page["B"]), B.data, rtol=1e-6, atol=1e-6)
    delta = float64(page["delta"])
    torch.testing.assert_close(float64(page["values"]), torch.linalg.svdvals(delta), rtol=1e-6, atol=1e-6)


def test_the_update_is_the_chapters_and_rank_bounds_what_is_learnt(math):
    for rank, percent in ((1, 46.7), (2, 16.7), (4, 0.0)):
        page = math(rank, 2 * rank, steps=300)
        torch.testing.assert_close(torch.linalg.svdvals(float64(page["E"]))[:5], float64([4, 3, 2, 1, 0]), rtol=1e-9, atol=1e-9)
        assert round(100 * page["floor"], 1) == percent == round(100 * page["left"][-1], 1)


def test_what_starts_at_zero_decides_which_gradient_is_zero(math):
    zero = {zero: [not any(map(any, math(2, 4, zero)["looks"][0]["gradients"][factor])) for factor in "AB"] for zero in ("B", "A", "both", "neither")}
    assert zero == {"B": [True, False], "A": [False, True], "both": [True, True], "neither": [False, False]}
    assert math(2, 4, "both")["left"][-1] == 1, "with both at zero nothing trains"


def test_steps_that_are_too_large_end_in_a_word_and_no_number(math):
    page = math(2, 32, rate=0.5)
    assert page["exploded"] and all(left < 1e9 for left in page["left"])


@pytest.mark.parametrize("script", ["lora-trainer-math.js", "lora-trainer.js", "page-parts.js"])
def test_the_script_asks_for_nothing_else(script):
    text = (STATIC / script).read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|import\b|\bonclick|eval\(", text)


# In the page.


def opened(browser, **options):
    page = SITE / "book" / "02_lora_layer.html"
    if not page.exists():
        skip_unless_ci(f"no {page}: build the book with make book")
    tab = open_page(browser, page, **options)
    return tab, tab.locator(".lora-trainer")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_by_keyboard(browser, theme, width):
    tab, box = opened(browser, color_scheme=theme, reduced_motion="reduce", viewport={"width": width, "height": 900})
    said = box.locator("output").inner_text
    assert said() == "Step 0, s = 2: 100.0 % of the error is left; rank 2 can reach 16.7 %."
    factors = box.locator("svg").last.locator("text")
    assert factors.all_text_contents()[1] == "zero", "A's gradient at step 0"
    box.get_by_role("button", name="Step").focus()
    tab.keyboard.press("Enter")
    assert said().startswith("Step 1,") and factors.all_text_contents()[1] != "zero"
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")  # Run, which doesn't move where motion is unwelcome
    assert said() == "Step 101, s = 2: 16.7 % of the error is left; rank 2 can reach 16.7 %."
    box.get_by_label("Rank r").focus()
    tab.keyboard.press("ArrowRight")
    assert said().startswith("Step 0, s = 1.33: 100.0 % of the error is left; rank 3 can reach 3.3 %")
    box.get_by_label("Start with").select_option("both")
    assert said().endswith("both gradients are zero: nothing can train.")
    fill = box.locator("rect.minus").first.evaluate("cell => getComputedStyle(cell).fill")
    assert fill == {"light": "rgb(0, 114, 178)", "dark": "rgb(86, 180, 233)"}[theme]
    for button in box.locator("button").all():
        assert button.bounding_box()["height"] >= 43.9
    tab.context.close()


def test_a_run_moves_and_can_be_paused(browser):
    tab, box = opened(browser)
    run = box.get_by_role("button", name="Run")
    run.click()
    tab.wait_for_function("document.querySelector('.lora-trainer output').textContent.match(/Step (\\d+)/)[1] > 3")
    box.get_by_role("button", name="Pause").click()
    paused = box.locator("output").inner_text()
    tab.wait_for_timeout(100)
    assert box.locator("output").inner_text() == paused and box.locator("output").get_attribute("aria-busy") == "false"
    tab.context.close()
