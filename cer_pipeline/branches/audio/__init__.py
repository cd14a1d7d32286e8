"""The voice branches: states of a speech encoder, the heads over them, and their training."""
