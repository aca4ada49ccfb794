"""The one kind of error that a user can mend, and how a command ends on it."""

from __future__ import annotations

import errno
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
    def join(cls, problems: Iterable[str], title: str, most: int | None = None) -> UserError:
        """One error that lists every problem found, one a line; with `most` only so many, and counts the others."""
        problems = list(problems)
        if len(problems) == 1:
            return cls(problems[0])
        listed = problems[:most]
        more = [f"... and {len(problems) - len(listed)} more"] if len(problems) > len(listed) else []
        return cls(f"{title} ({len(problems)} problems):\n" + "\n".join(f"  - {p}" for p in listed + more))


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
_SYSTEM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO))


def explanation(error: BaseException) -> str | None:
    """The one message that a command ends with on this error; None where it is a bug, which shows its traceback.

    A full disk, a read-only folder and too little memory are the user's to mend too. Libraries that are not written
    in Python report them as errors of their own kinds: those are known by the system's words.
    """
    text = str(error)
    if isinstance(error, UserError):
        return text
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else text
    if isinstance(error, MemoryError) or any(words in text.lower() for words in _OUT_OF_MEMORY):
        return (
            "the memory is not enough" + (f" ({text.splitlines()[0]})" if text else "") + ". What was finished is "
            "kept. Free memory, or lower what a batch takes: predict_tokens_per_batch, training.tokens_per_batch, "
            "retrieval.batch_size"
        )
    return text.splitlines()[0] if any(words in text for words in _SYSTEM) else None


def command(function: F) -> F:
    """Decorate a command: an error with an `explanation` becomes one message on stderr and exit code 2.

    Set `SOLUTION_TRACEBACK=1` to see the traceback instead.
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
        except Exception as error:
            text = explanation(error)
            if text is None or os.environ.get("SOLUTION_TRACEBACK"):
                raise
            from solution.training import distributed

            if distributed.first_to_fail():
                print(f"error: {text}", file=sys.stderr)
            distributed.leave()
            raise SystemExit(EXIT_USER_ERROR) from None

    return run  # type: ignore[return-value]
