"""What fine-tuning has cost the base model: does the encoder still read neutral sentences as it did?

Everything here takes features [sentences, width] of ``neutral.SENTENCES`` (see
``evaluate.predict_features``) or weight matrices, and trains nothing.
"""

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from lora_from_scratch.config import LoraError

from .neutral import SCENES, SENTENCES, THEMES


def cosines(features: Tensor) -> Tensor:
    """The cosine of each two rows, [sentences, sentences]."""
    unit = F.normalize(features.double(), dim=1)
    return unit @ unit.T


def paraphrases_found(features: Tensor) -> Tensor:
    """For each first sentence and each paraphrase, whether the other of the two is the nearest of all.

    Shape [scenes, 2], boolean. The scene's third sentence, which shares words, competes.
    """
    _check(features)
    near = cosines(features).fill_diagonal_(-2).argmax(1).view(-1, 3)
    first = torch.arange(len(SCENES)) * 3
    return torch.stack([near[:, 0] == first + 1, near[:, 1] == first], dim=1)


def rank_agreement(features: Tensor, base: Tensor) -> float:
    """Spearman's correlation of all pairs' cosines with what they were in ``base``: 1 if none changed places."""
    _check(features)
    upper = torch.triu_indices(len(SENTENCES), len(SENTENCES), 1)
    now, before = (cosines(f)[upper[0], upper[1]].numpy() for f in (features, base))
    return float(spearmanr(now, before).statistic)


def grades() -> Tensor:
    """How near each two sentences are as they were written, [sentences, sentences].

    3 the same said twice, 2 the same scene, 1 the same theme, 0 nothing in common.
    """
    n = len(SENTENCES)
    scene = torch.arange(n) // 3
    theme = torch.repeat_interleave(torch.arange(len(THEMES)), torch.tensor([3 * len(s) for s in THEMES.values()]))
    same = scene[:, None] == scene
    third = torch.arange(n) % 3 == 2
    twice = same & ~third[:, None] & ~third
    return (theme[:, None] == theme).int() + same.int() + twice.int()


def grade_agreement(features: Tensor) -> float:
    """Spearman's correlation of all pairs' cosines with ``grades``."""
    _check(features)
    upper = torch.triu_indices(len(SENTENCES), len(SENTENCES), 1)
    pairs = (cosines(features)[upper[0], upper[1]], grades()[upper[0], upper[1]])
    return float(spearmanr(*(p.numpy() for p in pairs)).statistic)


def greatest_cosines(W: Tensor, U0: Tensor, k: int = 10) -> Tensor:
    """For each of W's k leading left singular vectors, its greatest cosine with *any* column of U0, [k].

    U0 [out, n] holds the base's left singular vectors, all of them.

    A vector whose greatest cosine is small is an intruder dimension
    (Shuttleworth et al. 2024, arXiv:2410.21228): new, and among the strongest.
    """
    U = torch.linalg.svd(W, full_matrices=False).U[:, :k]
    return (U.T @ U0).abs().amax(1)


def _check(features: Tensor) -> None:
    if features.dim() != 2 or len(features) != len(SENTENCES):
        raise LoraError(f"expected features of the {len(SENTENCES)} neutral sentences, got {list(features.shape)}")
