"""The face branches: single pictures and sequences of a subject's face, and the training of their heads."""
