"""Cascade: post-training by the Nemotron-Cascade 2 recipe."""

import sys

__version__ = "0.1.0"

# Rows may hold longer integers than Python reads by itself (4,300 digits): what a program is expected to print.
sys.set_int_max_str_digits(100_000)
