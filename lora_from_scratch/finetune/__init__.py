"""Fine-tuning a text classifier with LoRA: six emotions in short English texts, or data of your own."""

from lora_from_scratch.finetune.data import LABEL_NAMES, Split, TextData, load_emotion
from lora_from_scratch.finetune.encoders import BACKBONES, encoder_targets
from lora_from_scratch.finetune.evaluate import Metrics, evaluate
from lora_from_scratch.finetune.failures import Collapsed, TrainingFailed
from lora_from_scratch.finetune.loop import class_scores, steps
from lora_from_scratch.finetune.model import (
    EncoderClassifier,
    TextClassifier,
    build_classifier,
    load_classifier,
    load_finetuned,
    save_finetuned,
)
from lora_from_scratch.finetune.projected_head import ProjectedHead, principal_directions, use_projected_head
from lora_from_scratch.finetune.recipe import TrainConfig
from lora_from_scratch.finetune.resume import Checkpoint
from lora_from_scratch.finetune.sources import load_data
from lora_from_scratch.finetune.train import finetune

__all__ = [
    "BACKBONES",
    "LABEL_NAMES",
    "Checkpoint",
    "Collapsed",
    "TextData",
    "EncoderClassifier",
    "Metrics",
    "ProjectedHead",
    "Split",
    "TextClassifier",
    "TrainConfig",
    "TrainingFailed",
    "build_classifier",
    "class_scores",
    "encoder_targets",
    "evaluate",
    "finetune",
    "load_classifier",
    "load_data",
    "load_emotion",
    "load_finetuned",
    "principal_directions",
    "save_finetuned",
    "steps",
    "use_projected_head",
]
