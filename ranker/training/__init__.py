"""Losses, batches, the trainer and the run. One of the four rooms that may import torch."""

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it is imported with the trainer; its warning is of 4 bits
