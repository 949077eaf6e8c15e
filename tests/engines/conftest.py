import os

# Other packages' plugins: nemo-toolkit brings one that needs what is not installed.
os.environ.setdefault("VLLM_PLUGINS", "")
