"""The one kind of error that a user can mend, and how a command ends on it."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from solution.suggestions import running_command

EXIT_USER_ERROR = 2

F = TypeVar("F", bound=Callable[..., Any])


class UserError(Exception):
    """Something in the user's files, settings or machine is wrong; the message says what to do."""

    @classmethod
    def join(cls, problems: Iterable[str], title: str) -> UserError:
        """One error that lists every problem found, one a line."""
        problems = list(problems)
        if len(problems) == 1:
            return cls(problems[0])
        return cls(f"{title} ({len(problems)} problems):\n" + "\n".join(f"  - {p}" for p in problems))


def command(function: F) -> F:
    """Decorate a command: a `UserError` becomes one message on stderr and exit code 2.

    A full disk or a read-only folder is the user's to mend too, so `OSError` is reported in
    the same way. Set `SOLUTION_TRACEBACK=1` to see the traceback instead.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with running_command(function.__name__, kwargs):
                return function(*args, **kwargs)
        except KeyboardInterrupt:
            from solution.training import distributed

            if distributed.rank() == 0:
                print("interrupted: what was finished is kept; run the same command again to go on", file=sys.stderr)
            raise SystemExit(130) from None
        except (UserError, OSError) as error:
            if os.environ.get("SOLUTION_TRACEBACK"):
                raise
            text = str(error)
            if isinstance(error, OSError):
                text = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
            from solution.training import distributed

            if distributed.first_to_fail():
                print(f"error: {text}", file=sys.stderr)
            distributed.leave()
            raise SystemExit(EXIT_USER_ERROR) from None

    return run  # type: ignore[return-value]
