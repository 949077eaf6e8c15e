"""Commands of `cascade` besides the pipeline."""
