"""Explain a prediction: its contributions, and what it was computed from.

Belongs here: the exact origin of a stored value, without new inference. Does not belong here: computing the value.
"""
