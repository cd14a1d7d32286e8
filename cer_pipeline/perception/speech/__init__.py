"""The tables `speech` and `transcripts`: when somebody speaks, and what is said."""
