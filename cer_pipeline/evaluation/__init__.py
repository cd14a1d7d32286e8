"""Evaluation: what a score is, how sure it is, and the protocols of the paper and of the ABAW challenge.

Belongs here: metrics, intervals and protocols over predictions and labels. Does not belong here: anything that chooses
a setting (`training`), because test labels are read here alone.
"""
