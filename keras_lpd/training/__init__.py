"""What a training step of `LPDistiller` is made of."""
