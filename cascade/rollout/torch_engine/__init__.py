"""Sampling with torch alone: decoders with static caches, CUDA graphs, fused kernels; on the CPU too."""
