"""Make the reader's edition, which Colab, previews of the repository and the download button give: python -m tools.edition

The book's own notebooks hold MyST, which only the site understands. Here each becomes plain Markdown, with code and
outputs as they are. The pages workflow publishes them as a branch of their own, which tools.notebook names.
"""

from pathlib import Path

from tools.edition.write import FOLDER, write_edition

ROOT = Path(__file__).resolve().parents[2]


def main():
    made = write_edition(ROOT, ROOT / FOLDER)
    print(f"{len(made)} notebooks of the reader's edition are in {ROOT / FOLDER}")
    print("On Colab they bring what they need; on this machine they run in the folder book/, beside its modules.")


if __name__ == "__main__":
    main()
