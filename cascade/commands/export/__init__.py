"""Export of a recipe to other frameworks that can run its stages."""
