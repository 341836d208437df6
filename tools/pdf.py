"""Print the whole book as one PDF: python -m tools.pdf [FILE]    default: _build/lora-from-scratch.pdf

Sphinx puts all pages into one, and Chromium typesets and prints it, so no LaTeX is needed.
"""

import re
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pikepdf
import pypdf
from playwright.sync_api import sync_playwright

from tools.browser import launch
from tools.ext.book_head import PDF, version

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "_build" / "print"
TARGET = ROOT / "_build" / PDF
SCALE = 0.85  # of type; 665 CSS pixels lie between the margins of A4
MARGIN = {"top": "18mm", "bottom": "20mm", "left": "17mm", "right": "17mm"}
FOOTER = '<div style="width:100%;text-align:center;font-size:8px"><span class="pageNumber"></span></div>'
# Nobody can unfold anything on paper, so everything is unfolded here. The theme prints a title and contents of
# its own; the headings named in these contents are the chapters.
PREPARE = """version => {
  document.documentElement.dataset.theme = document.documentElement.dataset.mode = 'light';
  document.querySelectorAll('details').forEach(d => d.open = true);
  const plain = e => e.textContent.replace(/#$/, '').trim();
  const names = [...document.querySelectorAll('#jb-print-toc li')].map(plain);
  for (const heading of document.querySelectorAll('article h2'))
    if (names.includes(plain(heading))) heading.classList.add('print-chapter');
  document.querySelector('article h1').classList.add('print-chapter');
  document.querySelector('#jb-print-docs-body h1').insertAdjacentHTML('afterend', `<p>Version ${version}</p>`);
  return names;
}"""
# A wide table gets smaller type, so that no word or number is broken in two.
SHRINK = """() => {
  for (const table of document.querySelectorAll('article table')) {
    const edge = table.parentElement.getBoundingClientRect().right + 1;
    for (let size = 0.7; size > 0.45 && table.getBoundingClientRect().right > edge; size -= 0.05)
      table.style.fontSize = `${size}em`;
  }
}"""
FAULTS = {  # fault -> the script that lists where it is
    "images lost": "() => [...document.images].filter(i => !i.naturalWidth).map(i => i.src)",
    "formulas not typeset": """() => [...document.querySelectorAll('.math')]
      .filter(m => !m.querySelector('mjx-container')).map(m => m.textContent)""",
    # Chromium shrinks nothing, so whatever is wider than the paper is lost.
    "cut at the edge": """() => {
      const right = document.querySelector('article').getBoundingClientRect().right + 1;
      return [...document.querySelectorAll('article :is(pre, img, table, div.math)')]
        .filter(e => e.getBoundingClientRect().right > right || e.matches('pre, .math') && e.scrollWidth > e.clientWidth + 1)
        .map(e => e.textContent.trim().slice(0, 80) || e.src);
    }""",
}


def missing(chapters, text):
    """The chapters whose names aren't printed twice, in the contents and as a heading."""
    # NFKC, because the letters f and i come out of a PDF as one character.
    squeezed = re.sub(r"\s", "", unicodedata.normalize("NFKC", text))
    return [name for name in chapters if squeezed.count(re.sub(r"\s", "", name)) < 2]


def build():
    """The one-page site, in the top folder, because its links to images and styles are relative to that."""
    builder = [str(Path(sys.executable).parent / "jupyter-book"), "build", ".", "--builder", "singlehtml"]
    subprocess.run([*builder, "--path-output", str(WORK), "--all", "-q"], cwd=ROOT, check=True)
    site = WORK / "_build" / "singlehtml"
    page = site / "whole.html"
    shutil.copy(next(site.glob("book/intro.html")), page)
    return page


def main():
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    page = build()
    with sync_playwright() as playwright:
        browser = launch(playwright)
        tab = browser.new_page(viewport={"width": int(665 / SCALE), "height": 1000})
        tab.set_default_timeout(300_000)
        tab.goto(page.as_uri(), wait_until="load")
        tab.evaluate("() => MathJax.startup.promise")
        chapters = tab.evaluate(PREPARE, version(ROOT))
        tab.emulate_media(media="print", color_scheme="light")
        tab.evaluate(SHRINK)
        found = {what: tab.evaluate(search) for what, search in FAULTS.items()}
        tab.pdf(path=target, format="A4", scale=SCALE, margin=MARGIN, print_background=True, outline=True, tagged=True,
                display_header_footer=True, header_template="<span></span>", footer_template=FOOTER)  # fmt: skip
    with pikepdf.open(target, allow_overwriting_input=True) as printed:  # Chromium writes each of 200,000 objects uncompressed
        printed.save(target, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    pdf = pypdf.PdfReader(target)
    found["chapters missing"] = missing(chapters, "".join(sheet.extract_text() for sheet in pdf.pages))
    print(f"{target}: {len(pdf.pages)} pages, {target.stat().st_size / 1e6:.1f} MB, {len(chapters)} chapters")
    for what, names in found.items():
        if names:
            print(f"{what}: {len(names)}", *names[:8], sep="\n  ")
    sys.exit(any(found.values()))


if __name__ == "__main__":
    main()
