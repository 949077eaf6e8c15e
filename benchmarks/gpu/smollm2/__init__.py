"""The whole cascade on one GPU with SmolLM2-135M-Instruct and public data (recipes/smollm2.yaml).

    python -m benchmarks.gpu.smollm2 prepare --out FOLDER …   # where there is a network: what the machine needs
    python -m benchmarks.gpu.smollm2 run --from FOLDER --work DIR --limit SECONDS --out FILE

`run` does what is left to do within the limit and can be called until nothing is: all state is under DIR.
"""
