"""What judges the responses of this process, and where, as the recipe says."""

from cascade import judges
from cascade.recipe import Recipe


def use_verifiers(recipe: Recipe) -> None:
    """Let the recipe's models judge, and its cluster verify, what this process samples from now on."""
    judges.use(recipe.judges)
    if recipe.verification is not None:
        from cascade.environments.spread import spread

        spread(recipe.verification, recipe.judges, recipe.judging_threads)
