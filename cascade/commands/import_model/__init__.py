"""`cascade import`: a model from the Hub, a directory or a GGUF file becomes a base model that the cascade can train."""
