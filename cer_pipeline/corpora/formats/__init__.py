"""Corpus formats: one module each, their registry, and the readers that several of them share."""
