"""The rank slider of chapter 1: its data are the chapter's pictures, small, and up to date."""

import re
from pathlib import Path

import nbformat
import pytest
import torch

from lora_from_scratch import truncated_svd
from tools import rank_slider

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "book" / "_static"


@pytest.fixture(scope="module")
def data():
    return rank_slider.read()


@pytest.fixture(scope="module")
def chapter():
    """What the chapter's own cells make."""
    names = {}
    cells = {cell.id: cell.source for cell in nbformat.read(ROOT / "book" / "01_svd.ipynb", as_version=4).cells}
    imports = re.findall(r"^(?:import torch|from sklearn\b.*)$", cells["set-up"], flags=re.M)
    exec("\n".join([*imports, cells["photo"], cells["shuffled"]]), names)
    return names


def test_the_slider_shows_the_chapters_pictures(chapter):
    photo, shuffled = rank_slider.pictures()
    assert torch.equal(photo, chapter["photo"])
    assert torch.allclose(shuffled - photo.mean(), chapter["shuffled"])


def test_the_stored_pieces_are_those_of_the_pictures(data):
    for picture, packed in zip(rank_slider.pictures(), data["pictures"], strict=True):
        assert list(picture.shape) == [data["rows"], data["columns"]]
        centred = picture - picture.mean()
        assert data["mean"] == pytest.approx(picture.mean().item(), abs=1e-3)
        assert torch.allclose(torch.tensor(packed["values"]).double(), torch.linalg.svdvals(centred), rtol=1e-3)
        for k in (1, 4, 16, 64, min(picture.shape)):
            U, S, V = truncated_svd(centred, k)
            off = U * S @ V - rank_slider.unpack(packed, *picture.shape, k)
            assert off.square().mean().sqrt() < 1, "one grey level of 256"


def test_the_slider_is_small():
    size = sum((STATIC / name).stat().st_size for name in ("rank-slider.js", "rank-slider-data.js"))
    assert size < 150_000


@pytest.mark.parametrize("script", ["rank-slider.js", "rank-scale.js"])
def test_the_script_asks_for_nothing_else(script):
    text = (STATIC / script).read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|import\b|\bonclick|eval\(", text)
