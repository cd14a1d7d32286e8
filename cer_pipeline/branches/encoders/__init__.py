"""Pretrained encoders of the model hub that several branches share, and linear heads on their features."""
