"""A recipe, written for other systems that can run its stages."""
