"""The table `captions`: texts about what is visible and audible in a segment."""
