"""Warnings of other libraries that no user can act on: silenced by importing this module. And how threads wait."""

import logging
import os
import warnings

# Threads that wait for each other give up the core: on a shared machine spinning costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# bitsandbytes warns at import that an optional kernel, which the hub would have to send, is not there.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
