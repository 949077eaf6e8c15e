"""`cascade import`: a base model for the cascade from the Hub, a directory or a GGUF file."""
