"""Sampling with vLLM: servers, or an engine beside the trainer."""
