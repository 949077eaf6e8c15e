"""Making a base model from text that the project generates: corpus, tokenizer, training, card."""
