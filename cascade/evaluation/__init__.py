"""Benchmarks of checkpoints and their statistics.

Importing one part does not load the others: `checkpoint_runner` needs torch, which takes seconds.
"""
