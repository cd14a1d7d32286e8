"""The tables `labels` and `frame_labels`: labels of windows and frames."""
