"""The command line with a log line for every step: what test_parallel.py launches."""

import sys

from lora_from_scratch.__main__ import main
from lora_from_scratch.finetune import train

train.LOG_EVERY = 1
sys.exit(main())
