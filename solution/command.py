"""The end of a command: on an error that the user can mend, one message and exit code 2."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from solution.errors import explanation
from solution.learning import distributed
from solution.suggestions import running_command

EXIT_USER_ERROR = 2

P = ParamSpec("P")
R = TypeVar("R")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: an error with an `explanation` becomes one message on stderr and exit code 2.

    Set `SOLUTION_TRACEBACK=1` to see the traceback instead.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with running_command(function.__name__, kwargs):
                return function(*args, **kwargs)
        except KeyboardInterrupt:
            if distributed.rank() == 0:
                print("interrupted: what was finished is kept; run the same command again to go on", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            text = explanation(error)
            if text is None or os.environ.get("SOLUTION_TRACEBACK"):
                raise
            if distributed.first_to_fail():
                print(f"error: {text}", file=sys.stderr)
            distributed.leave()
            raise SystemExit(EXIT_USER_ERROR) from None

    return run
