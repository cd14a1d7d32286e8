"""Compute the tables `compound` and `frame_predictions` from fused segments.

Belongs here: specs, stage classes and the averaging over frames. Does not belong here: the mappings themselves
(`compound`) or fusion (`fusion`).
"""
