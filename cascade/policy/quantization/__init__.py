"""Weights in few bits: the number formats, training with fake-quantised weights, and the directory that is written."""
