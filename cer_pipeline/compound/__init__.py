"""From basic emotions per segment to compound expressions per segment and to one row per frame of the video.

Belongs here: PPA, PFSA, and the averaging of windows over frames. Does not belong here: fusion (`fusion`) or reports.
"""
