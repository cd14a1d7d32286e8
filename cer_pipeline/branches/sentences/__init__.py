"""What every branch that reads text shares: the sentence encoder, the stages, likeness to sentences."""
