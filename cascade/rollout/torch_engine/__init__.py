"""Sampling with PyTorch only, on CPU and CUDA: decoders with static caches, CUDA graphs, fused kernels."""
