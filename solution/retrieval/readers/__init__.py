"""The forms of corpus files, each read as a stream of rows."""
