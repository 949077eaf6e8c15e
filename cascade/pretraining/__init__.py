"""Pretraining of a base model on text that the project generates: corpus, tokenizer, training, model card."""
