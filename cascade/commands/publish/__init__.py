"""Publishing a model that its gate has passed, with model card and data card in Hugging Face's format."""
