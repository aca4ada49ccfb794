"""Other people's noise, silenced when this is imported, and how their threads wait."""

import logging
import os
import warnings

# Threads that wait for each other give up the core: on a shared machine spinning costs several times the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# It warns at import that an optional kernel, which the hub would have to send, is not there.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
