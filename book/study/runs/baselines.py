"""Make the record of the baselines that fine-tuning must beat: results/yardsticks.json.

python -m book.study.runs.baselines                   MiniLM, about ten minutes on one CPU thread
python -m book.study.runs.baselines --model roberta   another backbone: results/yardsticks-roberta.json
"""

import sys
from functools import partial
from pathlib import Path

from lora_from_scratch.finetune import load_classifier, load_emotion

from .. import records
from ..baselines import encode, frozen_features, learning_curve, majority, tfidf
from . import one


def measure(model: str) -> dict:
    """All three baselines on the data that ``load_emotion`` finds."""
    data, classifier = load_emotion(), load_classifier(model)
    print(data, flush=True)
    features = encode(data, classifier)
    found = []
    for make in (lambda: majority(data), lambda: tfidf(data), lambda: frozen_features(data, features)):
        found.append(make())
        settings, accuracy = found[-1]["settings"], found[-1]["validation"]["accuracy"]
        print(f"{found[-1]['yardstick']}: validation {accuracy:.4f}, {settings}", flush=True)
    return {
        "backbone": classifier.backbone,
        "base_sha256": classifier.base_sha256,
        "max_length": classifier.max_length,
        "data": {"source": data.source, "is_real": data.is_real, "fingerprint": data.fingerprint},
        "chosen_on": "validation accuracy; test was read once, with what was chosen",
        "yardsticks": found,
        "learning_curve": learning_curve(data, features),
    }


def main() -> int:
    parser = one.parser("baselines", __doc__)
    parser.add_argument("--model", default="minilm", help="the backbone whose features are used")
    parser.add_argument("--out", type=Path, help="the record's file (default: results/yardsticks.json)")
    args = parser.parse_args()
    name = "yardsticks" if args.model == "minilm" else f"yardsticks-{args.model.replace('/', '-')}"
    run = one.Run(args.out or records.RESULTS / f"{name}.json", partial(measure, args.model))
    return one.run_missing(parser, args, lambda: {name: run})


if __name__ == "__main__":
    sys.exit(main())
