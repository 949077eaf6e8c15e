"""Cascade: post-training by the Nemotron-Cascade 2 recipe."""

__version__ = "0.1.0"
