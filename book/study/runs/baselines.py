"""Make the record of the yardsticks that fine-tuning must beat: results/yardsticks.json.

python -m book.study.runs.baselines                   MiniLM, about ten minutes on one CPU thread
python -m book.study.runs.baselines --model roberta   another backbone: results/yardsticks-roberta.json
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from lora_from_scratch.adapter_files import write_json
from lora_from_scratch.finetune import load_classifier, load_emotion
from lora_from_scratch.finetune.record import environment
from ..baselines import (
    encode,
    frozen_features,
    learning_curve,
    majority,
    tfidf,
)

ROOT = Path(__file__).resolve().parents[3]


def record(model: str, command: str) -> dict:
    """All three yardsticks on the data that ``load_emotion`` finds, as plain data."""
    data, classifier = load_emotion(), load_classifier(model)
    print(data, flush=True)
    features = encode(data, classifier)
    yardsticks = []
    for make in (lambda: majority(data), lambda: tfidf(data), lambda: frozen_features(data, features)):
        yardsticks.append(make())
        one = yardsticks[-1]
        print(f"{one['yardstick']}: validation {one['validation']['accuracy']:.4f}, {one['settings']}", flush=True)
    return {
        "command": command,
        "environment": environment(),
        "backbone": classifier.backbone,
        "base_sha256": classifier.base_sha256,
        "max_length": classifier.max_length,
        "data": {"source": data.source, "is_real": data.is_real, "fingerprint": data.fingerprint},
        "chosen_on": "validation accuracy; test was read once, with what was chosen",
        "yardsticks": yardsticks,
        "learning_curve": learning_curve(data, features),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="minilm", help="the backbone whose features are used")
    parser.add_argument("--out", type=Path, help="the file (default: results/yardsticks.json)")
    args = parser.parse_args()
    name = "yardsticks" if args.model == "minilm" else f"yardsticks-{args.model.replace('/', '-')}"
    out = args.out or ROOT / "results" / f"{name}.json"
    made = record(args.model, shlex.join(["python", "-m", "book.study.runs.baselines", *sys.argv[1:]]))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, made)
    print(json.dumps({y["yardstick"]: round(y["test"]["accuracy"], 4) for y in made["yardsticks"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
