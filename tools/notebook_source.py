"""Print a notebook's source alone, for git to compare: python -m tools.notebook_source FILE

git config diff.ipynb.textconv ".venv/bin/python -m tools.notebook_source"   (.gitattributes names the rest)
"""

import json
import sys


def source(notebook: dict) -> str:
    parts = []
    for cell in notebook["cells"]:
        tags = " ".join(cell["metadata"].get("tags", []))
        parts.append(f"[{cell['cell_type']} {cell.get('id', '')} {tags}".rstrip() + "]\n" + "".join(cell["source"]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        print(source(json.load(file)))
