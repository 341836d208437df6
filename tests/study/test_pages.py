"""README's table, the page of results and the landing page's figure are what the records say."""

import subprocess
import sys

from PIL import Image

from study import records
from study.pages import figure


def test_readme_and_results_page_show_what_the_records_say():
    command = [sys.executable, "-m", "book.study.pages.tables", "--check"]
    run = subprocess.run(command, cwd=records.ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_social_card_shows_todays_figure():
    assert Image.open(figure.CARD_FILE).text["figure"] == figure.figure_mark(), "run python -m book.study.pages.figure --card"
