"""The Python API: what `import solution` promises (`solution.__all__`), and what the command line calls.

A question, an exam, a stage: each function reads what a command of the same name reads, and returns what the command
prints. Errors that a user can mend are `UserError`.
"""
