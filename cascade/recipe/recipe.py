"""The recipe: the definition of a run. `params.yaml` is the active one.

A node names what it starts from (`init`), so the recipe alone defines the graph. Errors name the key and the remedy,
in one line.
"""

from typing import Any

from pydantic import Field, model_validator

from cascade import environments
from cascade.judges.settings import Judges
from cascade.recipe import defaults, validation
from cascade.recipe.data import Curation
from cascade.recipe.graph import Graph
from cascade.recipe.names import Name
from cascade.recipe.placement import Placement, Verification, Workers
from cascade.recipe.sections import Evaluation, OffPolicyNode, OnPolicyNode
from cascade.utils.config import Count


class Recipe(Graph):
    """The whole configuration of a run."""

    family: Name
    """Runs of one family share history."""
    seed: int = 0
    threads: Count = 2
    """CPU threads; results are reproducible for a given number."""
    base: str = "models/base"
    """Directory of the base model."""
    pools: dict[str, Placement] = Field(default_factory=dict)
    """Node → where it runs; without an entry, where the flow runs. Not an input of the node: it changes
    results only by rounding."""
    judges: Judges = Judges()
    verification: Verification | None = None
    """Where responses are verified; like `pools` not an input of any node."""
    curation_workers: Workers = Workers()
    """What curates; like `pools` not an input of any node."""
    curation: Curation
    evaluation: Evaluation

    @property
    def judging_threads(self) -> int:
        """Threads that judge responses. More than CPU threads where they wait for a server or for a verifier on another
        machine."""
        concurrency = max(self.judges.concurrency, self.verification.workers if self.verification else 0)
        if any(source.gym_url for source in self.curation.sources.values()):
            from cascade.environments.gym_server import CONCURRENCY  # brings httpx, and few recipes have a server

            concurrency = max(concurrency, CONCURRENCY)
        return max(self.threads, concurrency)

    @property
    def judged_here(self) -> bool:
        """Whether every response is judged in the node's own process, without a server or another machine."""
        served = any(source.gym_url for source in self.curation.sources.values())
        return not (self.judges.named or self.verification or served)

    @property
    def domains(self) -> list[str]:
        """Every domain with a benchmark, in the order of the sources."""
        return self.curation.domains

    def place(self, name: str) -> Placement:
        return self.pools.get(name, Placement())

    def longest_rollout(self, node: OnPolicyNode | OffPolicyNode) -> int:
        """Largest number of tokens after the prompt; of an episode, where the recipe is known to have any, in all."""
        sources = [s for s in self.curation.sources.values() if s.domain in node.mix and s.rl]
        known_environments = [environments.get(s.rows_name) for s in sources if s.rows_name in environments.names()]
        episodes = any(isinstance(environment, environments.EpisodeEnvironment) for environment in known_environments)
        return node.rollout.max_context if episodes else node.rollout.max_new_tokens

    @model_validator(mode="before")
    @classmethod
    def _with_defaults(cls, content: Any) -> Any:
        return defaults.filled(content)

    @model_validator(mode="after")
    def _runnable(self) -> "Recipe":
        validation.check(self, self.curation, self.pools)
        return self
