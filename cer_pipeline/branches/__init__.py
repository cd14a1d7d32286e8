"""Branches: one module per modality family, each an encoder and a head that ends in 8 basic-emotion probabilities."""
