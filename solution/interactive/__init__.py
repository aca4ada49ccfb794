"""Single questions, answered while somebody waits: the rankers stay loaded between them."""
