"""python -m lora_from_scratch: the command line, which is in ``finetune/cli.py``."""

import signal
import sys

from lora_from_scratch.finetune.cli import main
from lora_from_scratch.finetune.streams import open_standard_files

if __name__ == "__main__":
    if callable(signal.getsignal(signal.SIGINT)):  # it is not ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on, main says what Ctrl-C leaves
    open_standard_files()
    sys.exit(main())
