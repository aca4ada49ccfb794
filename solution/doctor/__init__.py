"""The doctor: checks of this machine, its packages and a working folder, and the plan of a submission from it.

Nothing is changed. Each check stands alone: a part that is broken is one line of the report, and the next check runs.
"""
