"""Why a prediction came out: its parts, and what it was computed from.

Belongs here: telling, exactly and without new computation, where a value came from. Does not belong here: computing it.
"""
