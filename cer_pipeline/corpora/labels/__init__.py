"""The tables `labels` and `frame_labels`: annotations put on windows and frames."""
