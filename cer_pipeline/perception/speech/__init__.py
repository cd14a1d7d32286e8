"""The tables `speech` and `transcripts`: voice activity detection and speech recognition."""
