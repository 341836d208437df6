"""The Chromium that tests, prints and draws pages."""

import shutil
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip


def chromium():
    """Its path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def launch(playwright):
    """A running browser; where there is none, exits with the names that were tried."""
    path = chromium() or sys.exit(f"error: no Chromium here: looked for {', '.join(NAMES)}")
    return playwright.chromium.launch(executable_path=path, args=FLAGS)
