"""The teacher's page: its objectives are the chapters', its courses keep their hours, and what it points to is there."""

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.tools.small_book import CHAPTERS
from tools import chapters
from tools.teaching import BEGIN, END, chapter, teaching_page

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")


def test_objectives_are_what_the_chapter_says():
    made = chapter(ROOT / "book" / "02_lora_layer.ipynb")
    assert "1. write a LoRA layer from memory, with the shape of every matrix;" in made and made in PAGE
    assert "The layer from memory (easy, 10 min)" in made and "to read" in made
    assert PAGE.count("After it you can") == 21
    assert ROOT / "book" / "teaching.md" not in chapters.outdated(ROOT)


def test_a_page_without_a_place_for_them_is_refused(tmp_path):
    (tmp_path / "teaching.md").write_text("# Teaching\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no place for the objectives"):
        teaching_page(tmp_path / "teaching.md", {"parts": []})
    (tmp_path / "teaching.md").write_text(f"# Teaching\n{BEGIN}old\n{END}\n", encoding="utf-8")
    assert "old" not in teaching_page(tmp_path / "teaching.md", {"parts": []}) and CHAPTERS


def test_exercises_that_the_courses_name_are_in_that_chapter():
    rows = [line for line in PAGE.splitlines() if re.match(r"\| \d+:\d\d \|", line)]
    assert len(rows) >= 16
    for row in rows:
        files = re.findall(r"\]\((\w+)\.ipynb\)", row)
        for name in re.findall(r"\*([A-Z][^*]+?)\*", row):
            texts = [(ROOT / "book" / f"{file}.ipynb").read_text(encoding="utf-8") for file in files]
            assert any(f"exercise}} {name}" in text for text in texts), f"{name}: not in {files}"


@pytest.mark.parametrize(("heading", "hours"), [("## A three-hour course", 3), ("## A one-day course", 4)])
def test_a_course_keeps_its_hours(heading, hours):
    part = PAGE.split(heading)[1].split("\n## ")[0]
    times = [datetime.strptime(time, "%H:%M") for time in re.findall(r"^\| (\d+:\d\d) \|", part, flags=re.M)]
    assert times == sorted(times) and timedelta(hours=hours - 1) < times[-1] - times[0] < timedelta(hours=hours)
