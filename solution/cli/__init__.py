"""The command lines. Heavy libraries are imported only after arguments, settings and files have been checked."""
