"""The scene branches: captions through trained heads or against label texts, and the training of the heads."""
