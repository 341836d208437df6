"""What a notebook of this book looks like, for the gate, the runner and the tests."""

import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml

# The environment in which outputs are made and compared.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",  # sums depend on the number of threads in their last digits
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm.auto, imported by others
}

EDITION = "notebooks"  # the branch to which the pages workflow pushes what tools.edition makes
CELL_TIMEOUT = 900  # seconds
MAX_IGNORED, MIN_EXACT = 0.10, 0.85  # shares of the cells with output, over the whole book

TAGS = {
    "hide-input", "hide-output", "hide-cell", "remove-cell", "remove-input",
    "set-up", "exercise", "solution", "variation",
    "nbval-ignore-output", "real-data",
}  # fmt: skip
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
METADATA = ("tags", "mystnb", "jupyter")  # cell metadata that means something to the book


def read(path):
    return nbformat.read(path, as_version=4)


def canonical(nb):
    """The one form in which a notebook is stored, as text. Changes nb."""
    nb.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": LANGUAGE})
    nb.nbformat, nb.nbformat_minor = 4, 5
    seen = set()
    for i, cell in enumerate(nb.cells):
        kept = {key: cell.metadata[key] for key in METADATA if key in cell.metadata}
        cell.metadata = nbformat.from_dict(kept)
        cell.source = cell.source.rstrip()
        cell.pop("attachments", None)
        if not re.fullmatch(r"[a-z][a-z0-9-]{2,40}", cell.get("id", "")) or cell.id in seen:
            cell.id = f"cell-{i:03d}"
        seen.add(cell.id)
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    return nbformat.writes(nb) + "\n"


def tags(cell):
    return set(cell.metadata.get("tags", []))


def code_cells(nb):
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def output_text(cell):
    """All text in a cell's outputs, without pictures."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", ""))
        parts += [v for k, v in output.get("data", {}).items() if k.startswith("text/")]
    return "\n".join(parts)


def pictures(cell):
    return [
        output
        for output in cell.get("outputs", [])
        if any(kind.startswith("image/") for kind in output.get("data", {}))
    ]


def tolerance(cell):
    """The relative tolerance that a tag such as tolerance-1e-3 states, or None."""
    for tag in tags(cell):
        if match := re.fullmatch(r"tolerance-(\d+(?:\.\d+)?(?:e-?\d+)?)", tag):
            return float(match[1])
    return None


def tier(cell):
    """How a cell's output is compared: exact, tolerant, ignored, figure; None without output.

    A figure is a cell that shows pictures and nothing else: its pixels are never compared,
    so it counts neither for nor against the book's shares.
    """
    if not cell.get("outputs"):
        return None
    if "nbval-ignore-output" in tags(cell):
        return "ignored"
    if len(pictures(cell)) == len(cell.outputs):
        return "figure"
    return "exact" if tolerance(cell) is None else "tolerant"


def shares(tiers):
    """The shares of exact and of ignored outputs among tiers, figures not counted."""
    counted = [tier for tier in tiers if tier in ("exact", "tolerant", "ignored")]
    if not counted:
        return 1.0, 0.0
    return counted.count("exact") / len(counted), counted.count("ignored") / len(counted)


def repository(root):
    """The address in _config.yml: url, slug (owner/name), branch; and where GitHub Pages puts the site."""
    config = yaml.safe_load((Path(root) / "_config.yml").read_text(encoding="utf-8"))
    entry = config["repository"]
    match = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+)", entry["url"])
    if not match:
        raise SystemExit(
            f"_config.yml: repository url is {entry['url']!r}, "
            "expected https://github.com/<owner>/<name>"
        )
    return SimpleNamespace(url=entry["url"], slug=match[1], branch=entry["branch"], site=pages_site(match[1]))


def pages_site(slug):
    owner, _, name = slug.partition("/")
    return f"https://{owner.lower()}.github.io/{name}"


def colab_address(repo, name):
    """A notebook of the reader's edition on Colab, which can't show the MyST of the book's own notebooks."""
    return f"https://colab.research.google.com/github/{repo.slug}/blob/{EDITION}/{name}"


def colab_link(repo, name):
    return f"[Open in Colab]({colab_address(repo, name)})"


def install_lines(repo):
    """The start of every notebook's first code cell.

    The repository is cloned and not only installed, because chapters read its run records.
    """
    return f"""\
import sys

if "google.colab" in sys.modules:  # on Colab, fetch the package and the run records first
    ![ -d /content/book ] || git clone -q --depth 1 -b {repo.branch} {repo.url} /content/book
    %pip install -q /content/book
    %cd -q /content/book/book"""
