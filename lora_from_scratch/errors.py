"""The one error that this package raises."""


class LoraError(ValueError):
    """Bad input to LoRA: the message says what was wrong and what was expected."""
