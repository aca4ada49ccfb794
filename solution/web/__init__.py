"""The web page of `python -m solution serve`: ask a question and see why, and practise with an exam."""
