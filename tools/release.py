"""Make the archive of a release, with site, PDF and notebooks: python -m tools.release

It works in a clean copy of the last commit, in which install lines and links to files name the tag vX.Y.Z instead
of the branch. Links to Colab still lead to the newest notebooks. The version is the one in pyproject.toml. Setting
the tag is up to you.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import yaml

from tools.edition.write import FOLDER
from tools.ext.book_head import PDF, version
from tools.notebook import repository
from tools.set_repository import NOBODY, name_ref

ROOT = Path(__file__).resolve().parent.parent
LICENSES = ("LICENSE", "LICENSE-text")
STEPS = ("tools.gate", "tools.pdf", "tools.steps book")  # the site links to the PDF if there is one, and brings the notebooks


def refusals(root):
    """Why this tree can't be released."""
    number = version(root)
    status = subprocess.run(["git", "status", "--porcelain"], cwd=root, check=True, capture_output=True, text=True).stdout
    if repository(root).slug.startswith(f"{NOBODY}/"):
        yield "the repository has no address yet: run make repository URL=https://github.com/<owner>/<name>"
    if status:
        yield f"the tree is not clean:\n{status.rstrip()}"
    changes = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(number)}, \d{{4}}-\d\d-\d\d$", changes, re.M):
        yield f"CHANGELOG.md has no heading '## {number}, <year>-<month>-<day>'"
    cited = str(yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))["version"])
    if cited != number:
        yield f"CITATION.cff is of version {cited}, pyproject.toml of {number}"


def copy_of_commit(root, folder):
    archive = folder / "commit.tar"
    subprocess.run(["git", "archive", "-o", str(archive), "HEAD"], cwd=root, check=True)
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "copy", filter="data")
    return folder / "copy"


def pack(copy, target):
    """Write the archive, with everything in a folder that has its name."""
    built = copy / "_build"
    parts = [(path, Path("site") / path.relative_to(built / "html")) for path in sorted((built / "html").rglob("*"))]
    parts += [(path, Path("notebooks") / path.name) for path in sorted((copy / FOLDER).glob("*.ipynb"))]
    parts += [(path, path.name) for path in (built / PDF, *(copy / name for name in LICENSES))]
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in parts:
            archive.write(path, Path(target.stem) / name)


def main():
    if found := list(refusals(ROOT)):
        sys.exit("no release: " + "\nno release: ".join(found))
    number = version(ROOT)
    target = ROOT / "build" / f"lora-from-scratch-{number}.zip"
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_of_commit(ROOT, Path(folder))
        name_ref(copy, f"v{number}")
        for step in STEPS:  # the gate comes first, because it compares every link and install line with _config.yml
            subprocess.run([sys.executable, "-m", *step.split()], cwd=copy, check=True)
        pack(copy, target)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB. Next: git tag v{number}, and push it")


if __name__ == "__main__":
    main()
