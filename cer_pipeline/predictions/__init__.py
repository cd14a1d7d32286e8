"""The tables `compound` and `frame_predictions`: from fused segments to compounds and frames.

Does not belong here: the mappings themselves (`compound`).
"""
