"""What `cascade NAME` does beside the pipeline."""
