"""Sampling with vLLM, on servers or colocated with the trainer."""
