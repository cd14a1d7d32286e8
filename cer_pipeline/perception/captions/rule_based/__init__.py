"""The rule-based captioner: sentences from measured faces, pictures and sound."""
