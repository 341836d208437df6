"""A small book that passes the gate: what the gate's tests break, one rule at a time."""

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import chapters
from tools.notebook import canonical, colab_link, install_lines, repository

CONFIG = """\
repository:
  url: https://github.com/OWNER/lora-from-scratch
  branch: main
"""
CHAPTERS = """\
root: intro
parts:
  - caption: Part
    pages: [01_a]
"""
PACKAGE = '''\
class Layer:
    """A layer."""

    weight: float

    def forward(self, x):
        """Twice x."""
        return 2 * x
'''
CARD = """\
:::{admonition} At a glance
:class: tip
1. say what a layer is;
2. write one.

**Needs:** nothing
**Minutes:** 10 to read
**Hardware:** a laptop
**Cost:** nothing
:::"""
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def code(id, source, *outputs, tags=(), **metadata):
    shown = [new_output("stream", text=o) if isinstance(o, str) else o for o in outputs]
    if tags:
        metadata["tags"] = list(tags)
    return new_code_cell(source, id=id, outputs=shown, metadata=metadata)


def text(id, source):
    return new_markdown_cell(source, id=id)


def picture():
    return new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})


# Every kind of number that is bound to an output, and every kind that needs none.
SCORE_SAYS = """\
It gets 92.5 % right, or 92 per cent, with 147,456 parameters and a loss of 0.50.

The authors report 99.9 %, on
other data {cite}`hu2022lora`. See section 4.1 and 5.2 of their paper, version 0.21.2, with PyTorch 2.6, Apache-2.0,
a 1.7B model and `0.123`. It saw 16,000 rows."""
QUESTION = """
**{}.** What is $2 \\times 1$?

<details><summary>one, or 3.14</summary>

**No.** That is once one.

</details>
<details><summary>two</summary>

**Right.** It is twice one.

</details>
"""


def exercise(n):
    return [
        text(f"exercise-{n}", f"```{{exercise}} Task {n}\n:label: ex-task-{n}\n"
             f"*Difficulty: easy · 10 minutes · objective {1 + n % 2}*\n\nSet x to one.\n```"),
        code(f"stub-{n}", f"ch01.data()\nx = None  # your turn\nch01.task_{n}(x)", "not yet: x is not 1\n", tags=["exercise"]),
    ]  # fmt: skip


def solution(n):
    return [
        text(f"start-{n}", f"```{{solution-start}} ex-task-{n}\n:label: sol-task-{n}\n:class: dropdown\n```"),
        code(f"solution-{n}", f"print(ch01.more())\nx = 1\nch01.task_{n}(x)", "7\ncorrect: one\n", tags=["solution"]),
        text(f"end-{n}", "```{solution-end}\n```"),
    ]  # fmt: skip


def chapter_cells(repo, name):
    cells = [
        text("title", f"# A chapter\n\n{colab_link(repo, name)}"),
        text("card", CARD),
        code("set-up", install_lines(repo) + "\n\nimport torch\nfrom exercises import ch01", tags=["set-up", "hide-input"]),
        text("question", "## The question\n\n" + "What is a layer made of? " * 300),
        code("the-layer", "class Layer:\n    def forward(self, x):\n        return 2 * x"),
        *(code(f"teach-{i}", f"print({i})", f"{i}\n") for i in range(15)),
        text("formula", "A half is $0.5$, or `0.5`, in words one of two.\n\n$$\ny = 0.5\\,x\n$$ (eq-half)"),
        code("plot", "import matplotlib.pyplot as plt\nplt.plot([0, 1])\nplt.show()", picture(),
             tags=["hide-input"],
             mystnb={"image": {"alt": "A line that rises from left to right."},
                     "figure": {"caption": "It rises.", "name": "fig-line"}}),
        text("see", "See {numref}`fig-line` and {eq}`eq-half`."),
        code("score", "print('accuracy 92.48 %, trained 147,456')", "accuracy 92.48 %, trained 147,456\n"),
        code("loss", "print('loss 0.5004')", "loss 0.5004\n", tags=["tolerance-1e-3"]),
        text("score-says", SCORE_SAYS),
        code("timing", "print('77.7 rows a second'); assert True", "77.7 rows a second\n", tags=["nbval-ignore-output"]),
        text("summary", "**Before you run it:** guess.\n\n## Summary\n\nA layer is a function."),
        text("quiz", "## Check yourself\n" + "".join(QUESTION.format(n) for n in range(1, 5))),
        text("exercises", "## Exercises"),
    ]  # fmt: skip
    for n in range(1, 5):
        cells += exercise(n)
    cells += [text("further", "## Further reading\n\n- {cite:t}`hu2022lora`"), text("solutions", "## Solutions")]
    for n in range(1, 5):
        cells += solution(n)
    return cells


def intro_cells(repo, name):
    return [
        text("title", f"# A small book\n\n{colab_link(repo, name)}"),
        code("set-up", install_lines(repo), tags=["set-up", "hide-input"]),
        code("hello", "print('hello')", "hello\n"),
    ]


def write(path, cells, renumber=True):
    if renumber:
        for count, cell in enumerate((c for c in cells if c.cell_type == "code"), 1):
            cell.execution_count = count
    path.write_text(canonical(new_notebook(cells=cells)), encoding="utf-8")


def build(root):
    """Write the small book below root."""
    for folder in ("book", "lora_from_scratch"):
        (root / folder).mkdir()
    (root / "_config.yml").write_text(CONFIG)
    (root / chapters.LIST).write_text(CHAPTERS)
    (root / "_toc.yml").write_text(chapters.toc(root))
    (root / "lora_from_scratch" / "layers.py").write_text(PACKAGE)
    repo = repository(root)
    write(root / "book" / "intro.ipynb", intro_cells(repo, "intro.ipynb"))
    write(root / "book" / "01_a.ipynb", chapter_cells(repo, "01_a.ipynb"))
    (root / "README.md").write_text(f"The book.\n{chapters.BEGIN}{chapters.END}\n")
    (root / "README.md").write_text(chapters.readme(root))


def read(root, name="01_a.ipynb"):
    return nbformat.read(root / "book" / name, as_version=4)
