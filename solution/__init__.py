"""LLM Science Exam: open-book multiple-choice questions, ranked by an ensemble that reads what it retrieves."""

__version__ = "0.1.0"
