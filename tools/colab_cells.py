"""Run a notebook's first two code cells as Colab would: python colab_cells.py CONTENT NOTEBOOK

Called by colab.py in an environment that has IPython, torch, transformers and PEFT, as Colab's has;
the first cell installs the rest. CONTENT takes the place of Colab's folder /content.
"""

import json
import os
import sys
import types
from importlib.machinery import ModuleSpec

from IPython.core.interactiveshell import InteractiveShell

FIRST = 2


def main():
    content, path = sys.argv[1:]
    os.environ["MPLBACKEND"] = "agg"
    stand_in = types.ModuleType("google.colab")
    stand_in.__spec__ = ModuleSpec("google.colab", None)  # accelerate asks for it
    sys.modules["google.colab"] = stand_in
    with open(path, encoding="utf-8") as file:
        cells = [cell for cell in json.load(file)["cells"] if cell["cell_type"] == "code"]
    shell = InteractiveShell()
    for cell in cells[:FIRST]:
        if not shell.run_cell("".join(cell["source"]).replace("/content/", f"{content}/")).success:
            sys.exit(1)
    import lora_from_scratch

    assert lora_from_scratch.__file__.startswith(sys.prefix), lora_from_scratch.__file__  # what the cell installed


if __name__ == "__main__":
    main()
