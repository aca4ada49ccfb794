"""Warnings of other libraries that no user can act on: silenced by importing this module. And how threads wait."""

import logging
import os
import warnings

# Threads that wait for each other give up the core: on a shared machine spinning costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _matters(record: logging.LogRecord) -> bool:
    """False for bitsandbytes' warning, at its import, of an optional kernel that the hub would have to send."""
    return "kernels-community" not in str(record.msg)


# A logger's filter does not see what the loggers below it say: this one is that of the module that warns.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_matters)
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
