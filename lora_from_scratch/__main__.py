"""python -m lora_from_scratch: the command line, which is in ``finetune/cli.py``."""

import sys

from lora_from_scratch.finetune.cli import main

if __name__ == "__main__":
    sys.exit(main())
