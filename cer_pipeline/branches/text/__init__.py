"""The text branch: transcripts through the sentence encoder and a trained head, and the training of the head."""
