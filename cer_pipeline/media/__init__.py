"""Media files: what they hold, their windows and samples, their frames and their sound.

Belongs here: everything that opens a media file, and the arithmetic of time. Does not belong here: anything that looks
at what a frame shows or a sound says (`perception`).
"""
