"""Side-by-side measurements, each a command that writes its record to results/."""

from lora_from_scratch.emotion import TextData, load_emotion


def real_data() -> TextData:
    """The public dataset, of whose rows a record speaks; leaves with an error where there is only the built-in corpus."""
    data = load_emotion()
    if not data.is_real:
        raise SystemExit(f"error: this is measured on the public dataset, and there is only {data}: set EMOTION_DATA_DIR")
    return data
