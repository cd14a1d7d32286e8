"""Faces, speech, words and captions of a video, before any prediction of emotions."""
