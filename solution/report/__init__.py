"""The report: one HTML page and PNGs that show what the OOF files, the ensemble and the retrieval are worth."""
