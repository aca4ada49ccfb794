"""From a corpus to the passages that a ranker reads: corpus, passages, embedding, index, contexts."""
