"""What the branches over texts share: the sentence encoder, the stages and the zero-shot heads."""
