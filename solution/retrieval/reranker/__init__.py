"""The cross-encoder that puts retrieved passages into order."""
