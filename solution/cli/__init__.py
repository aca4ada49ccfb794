"""The command lines. Heavy libraries are imported only after arguments, settings and files have been checked."""

from solution import noise  # noqa: F401 - silences other libraries before a command imports them
