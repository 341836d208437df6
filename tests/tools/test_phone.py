"""Tables and outputs on a phone: what scrolls shows that it does, what a row is about stays in sight, no interval is torn in two."""

import pytest

from tests.site import SITE, open_page, skip_unless_ci

PHONE = {"width": 390, "height": 844}
TABLES = {"05_finetune": ".cell_output table", "results": ".pst-scrollable-table-container"}


@pytest.fixture
def opened(browser):
    tabs = []

    def go(stem, theme="light"):
        page = SITE / "book" / f"{stem}.html"
        if not page.exists():
            skip_unless_ci(f"no {page}: build the book with make book")
        tabs.append(open_page(browser, page, color_scheme=theme, viewport=PHONE))
        return tabs[-1]

    yield go
    for tab in tabs:
        tab.context.close()


@pytest.mark.parametrize(("stem", "box"), TABLES.items())
def test_the_first_column_stays_in_sight(opened, stem, box):
    table = opened(stem).locator(box).first
    assert table.evaluate("e => e.scrollWidth > e.clientWidth"), "this one should be too wide for a phone"
    table.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    cell = table.locator("tr >> nth=1").locator("td, th").first
    left = table.bounding_box()["x"]
    assert left - 2 <= cell.bounding_box()["x"] <= left + 2
    ground = cell.evaluate("e => getComputedStyle(e).backgroundColor")
    assert ground.startswith("rgb("), f"what slides under it would shine through: {ground}"


@pytest.mark.parametrize("stem", TABLES)
def test_an_interval_stays_on_one_line(opened, stem):
    torn = opened(stem).evaluate("""() => {
      const torn = [], walker = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
      for (let node; (node = walker.nextNode());) {
        if (!node.parentElement.closest('table')) continue;
        for (const found of node.data.matchAll(/\\[[^\\]]*\\]/g)) {
          const range = document.createRange();
          range.setStart(node, found.index);
          range.setEnd(node, found.index + found[0].length);
          if (new Set([...range.getClientRects()].map(r => Math.round(r.top))).size > 1) torn.push(found[0]);
        }
      }
      return torn;
    }""")
    assert not torn


@pytest.mark.parametrize(("stem", "box"), [*TABLES.items(), ("05_finetune", ".cell_output pre"), ("05_finetune", "div.highlight pre"),
                                           ("02_lora_layer", "div.math")])  # fmt: skip
def test_what_scrolls_has_a_shadow_where_there_is_more(opened, stem, box):
    grounds = opened(stem).locator(box).evaluate_all("boxes => boxes.map(e => getComputedStyle(e).backgroundImage)")
    assert grounds and all(ground.count("gradient") == 4 for ground in grounds)


def test_a_cells_table_has_no_light_card_in_dark_mode(opened):
    tab = opened("05_finetune", "dark")
    card = tab.locator(".cell_output .text_html:has(> table)").first
    assert card.evaluate("e => getComputedStyle(e).backgroundColor") == "rgba(0, 0, 0, 0)"
    ink = card.locator("td").first.evaluate("e => getComputedStyle(e).color.match(/\\d+/g).map(Number)")
    assert min(ink) > 150
