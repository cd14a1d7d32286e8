"""Media files: their streams, their windows and samples, their frames and their sound.

Belongs here: everything that opens a media file, and the arithmetic of time. Does not belong here: the analysis of
pictures and sound (`perception`).
"""
