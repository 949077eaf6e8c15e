"""Benchmarks of checkpoints, their statistics, and the two decisions taken from them: teachers and the gate.

Importing one part does not load the others: `benchmark` needs torch, which takes seconds.
"""
