"""Seeds of random draws, derived from keys (recipe seed, node, step, prompt, rollout), independent of call order."""

from hashlib import blake2b


def derive_seed(*keys: int | str) -> int:
    """A 63-bit seed from any sequence of keys; equal keys give equal seeds on every machine."""
    text = "\x1f".join(f"{type(key).__name__}:{key}" for key in keys)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
