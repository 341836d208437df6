"""Make the data of chapter 1's rank slider: the pieces of two pictures, one byte per value.

python -m tools.rank_slider

It writes book/_static/rank-slider-data.js. That's a script and not JSON, because a page opened as a local
file may load scripts but not fetch anything.
"""

import base64
import json
from pathlib import Path

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor

from lora_from_scratch import truncated_svd

TARGET = Path(__file__).resolve().parent.parent / "book" / "_static" / "rank-slider-data.js"
CREDIT = "china.jpg of scikit-learn, by danielbuechele on Flickr, CC BY 2.0; made grey, cropped, reduced"
HEAD = f"/* Made by tools/rank_slider.py. The photograph: {CREDIT}. */\nwindow.RANK_SLIDER = "


def pictures() -> tuple[Tensor, Tensor]:
    """The photograph of chapter 1 and its shuffled pixels, greys from 0 to 255."""
    grey = torch.tensor(load_sample_image("china.jpg")).double().mean(dim=2)
    photo = grey[:426, :639].reshape(142, 3, 213, 3).mean(dim=(1, 3))
    torch.manual_seed(3)
    order = torch.randperm(photo.numel())
    return photo, photo.flatten()[order].view_as(photo)


def pack(picture: Tensor, mean: float) -> dict:
    """Every rank-one piece as ``scale * u v``, with u and v whole numbers from -127 to 127."""
    U, S, V = truncated_svd(picture - mean, min(picture.shape))
    rows = torch.cat([U.T, V], dim=1)
    peaks = torch.stack([U.abs().amax(0), V.abs().amax(1)])
    widths = torch.tensor([len(U), V.shape[1]])
    whole = (rows * 127 / peaks.T.repeat_interleave(widths, dim=1)).round().to(torch.int8)
    return {
        "values": [float(f"{s:.5g}") for s in S.tolist()],
        "scale": [float(f"{s:.5g}") for s in (S * peaks.prod(0) / 127**2).tolist()],
        "pieces": base64.b64encode(whole.numpy().tobytes()).decode(),
    }


def unpack(packed: dict, rows: int, columns: int, k: int) -> Tensor:
    """The sum of the first k pieces, as the browser forms it."""
    data = bytearray(base64.b64decode(packed["pieces"]))
    whole = torch.frombuffer(data, dtype=torch.int8).view(-1, rows + columns)[:k].double()
    return (whole[:, :rows].T * torch.tensor(packed["scale"][:k])) @ whole[:, rows:]


def read(path: Path = TARGET) -> dict:
    return json.loads(path.read_text(encoding="utf-8").removeprefix(HEAD).rstrip().removesuffix(";"))


def main():
    photo, shuffled = pictures()
    mean = photo.mean().item()
    data = {
        "rows": photo.shape[0],
        "columns": photo.shape[1],
        "mean": round(mean, 3),
        "pictures": [
            {"name": "photograph", **pack(photo, mean)},
            {"name": "shuffled", **pack(shuffled, mean)},
        ],
    }
    TARGET.write_text(HEAD + json.dumps(data, separators=(",", ":")) + ";\n", encoding="utf-8")
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
