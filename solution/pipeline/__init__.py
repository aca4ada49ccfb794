"""The whole way from an exam and a corpus to answers, in one command: the demo's, and that of a folder of your own."""
