"""What is seen and heard in a video, before anyone judges an emotion: faces, speech, words, captions."""
