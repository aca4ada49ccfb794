"""The built-in exam and the run of the whole pipeline on it."""
