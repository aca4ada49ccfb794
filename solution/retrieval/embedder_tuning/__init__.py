"""An embedder that learns from questions whose source passage is known."""
