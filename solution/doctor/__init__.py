"""Whether this machine, its packages and a working folder are fit, and what a submission from it would do.

Nothing is changed. Each check stands alone: whatever is broken, it is one line of the report, and the next one runs.
"""
