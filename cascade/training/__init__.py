"""Training: the SFT loop and the one on-policy loop."""
