"""Errors that a user can mend, and the message that a command ends with on one."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Something in the user's files, settings or machine is wrong; the message says what to do.

    Attributes:
        problems: the texts of all problems, so that they can be joined with others.
    """

    def __init__(self, text: str = "", problems: Iterable[str] | None = None):
        super().__init__(text)
        self.problems = [text] if problems is None else list(problems)

    @classmethod
    def join(cls, problems: Iterable[str], title: str, most: int | None = None) -> UserError:
        """One error that lists all problems, one a line; with `most` only so many, and the number of the others."""
        problems = list(problems)
        if len(problems) == 1:
            return cls(problems[0])
        listed = problems[:most]
        more = [f"... and {len(problems) - len(listed)} more"] if len(problems) > len(listed) else []
        return cls(f"{title} ({len(problems)} problems):\n" + "\n".join(f"  - {p}" for p in listed + more), problems)


def check_together(title: str, *checks: Callable[[], object]) -> None:
    """Run all checks, each of which may raise `UserError`, and raise one error with the problems of all."""
    errors = []
    for check in checks:
        try:
            check()
        except UserError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise UserError.join([problem for error in errors for problem in error.problems], title)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")
_SYSTEM = tuple(os.strerror(code) for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS, errno.EIO))


def lacks_memory(error: BaseException) -> bool:
    """True where an error says, by its kind or in its words, that there was not enough memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


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
    if lacks_memory(error):
        return (
            "the memory is not enough" + (f" ({text.splitlines()[0]})" if text else "") + ". What was finished is "
            "kept. Free memory, or lower what a batch takes: predict_tokens_per_batch, training.tokens_per_batch, "
            "retrieval.batch_size"
        )
    return text.splitlines()[0] if any(words in text for words in _SYSTEM) else None
