"""The recipe's section on data: sources and what curation does with them."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cascade import environments
from cascade.errors import CascadeError
from cascade.recipe.names import Name
from cascade.utils.config import Count, Section, Share, check_sums_to_one


def _registered(name: str) -> str:
    if name not in environments.names():
        raise ValueError(f"unknown environment {name!r}; known: {', '.join(environments.names())}")
    return name


EnvironmentName = Annotated[str, BeforeValidator(_registered)]


def _check_level(generator: str, level: int) -> None:
    try:
        environments.check_level(generator, level)
    except CascadeError as error:
        raise ValueError(f"levels: {error}") from None


class HubEnvironment(Section):
    """An environment of the Environments Hub: the name of a package, or a mapping with these keys."""

    name: str
    """As `load_environment`'s package or the taskset is called."""
    python: str | None = None
    """The Python where it and `verifiers` are installed; default: the one that runs this."""
    arguments: dict[str, Any] = Field(default={})
    """Of `load_environment`, or of the taskset's configuration."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        return {"name": given} if isinstance(given, str) else given


class Source(Section):
    """Where rows come from. Exactly one of `generator`, `path`, `dataset`, `verifiers`, `harbor`."""

    generator: EnvironmentName | None = None
    """An environment's own task generator."""
    path: str | None = None
    """A local JSONL or Parquet file (or glob) of chat rows (`messages`) or NeMo Gym rows."""
    dataset: str | None = None
    """A Hugging Face dataset, streamed."""
    verifiers: HubEnvironment | None = None
    """The tasks of an environment of the Environments Hub, which answers and rewards them, too."""
    harbor: str | None = None
    """A Harbor task's directory (or a glob of such) whose test script rewards what was done in it."""
    subset: str | None = None
    split: str = "train"
    environment: EnvironmentName | None = None
    """For rows that name no environment."""
    agent: str | None = None
    """Only the rows whose NeMo Gym agent or environment has a name that begins so."""
    gym_url: str | None = None
    """A running NeMo Gym resources server, http://host:port, that verifies the rows, of any environment."""
    grading: Literal["gym"] | None = None
    """gym: grade the rows exactly as NeMo Gym does, also where its rules are wrong (docs/environments.md)."""
    domain: Name
    levels: dict[int, Share] = Field(default={1: 1.0})
    """Generators: share of rows at each difficulty level."""
    brief: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Generators: share of SFT demonstrations with truncated reasoning and a correct answer. A model trained on them
    also answers without reasoning; RL can correct this."""
    sft: Annotated[int, Field(ge=-1)] = 0
    """Rows for SFT; 0 takes none, -1 all."""
    rl: Annotated[int, Field(ge=-1)] = 0
    """Prompts for RL and distillation; 0 takes none, -1 all."""
    benchmark: Annotated[int, Field(ge=-1)] = 0
    """Held-out prompts for the domain's benchmark; 0 takes none, -1 all."""
    evaluated: bool = True
    """Whether checkpoints are evaluated on the benchmark; if not, it is for solve nodes alone."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Further held-out prompts, on which regression checks and gates evaluate undecided domains."""

    @property
    def rows_name(self) -> str:
        """The environment of its rows, where the recipe determines it; else the name of the domain."""
        if environment := self.generator or self.environment:
            return environment
        if self.verifiers is not None or self.harbor is not None:
            return "harbor" if self.verifiers is None else "verifiers"
        if agent := self.agent:
            for name in environments.names():
                aliases = environments.get(name).gym_names
                if any(alias.startswith(agent) or agent.startswith(alias) for alias in aliases):
                    return name
        return self.domain

    @model_validator(mode="after")
    def _one_origin(self) -> "Source":
        origins = (self.generator, self.path, self.dataset, self.verifiers, self.harbor)
        if sum(origin is not None for origin in origins) != 1:
            raise ValueError("needs exactly one of generator, path, dataset, verifiers, harbor")
        if self.verifiers is not None or self.harbor is not None:
            if self.sft:
                raise ValueError("sft: the tasks of verifiers and harbor have no demonstrations; take it out")
            if self.gym_url or self.environment or self.agent:
                raise ValueError(
                    "gym_url, environment, agent: verifiers and harbor judge their own tasks; take them out"
                )
        if self.generator is not None:
            check_sums_to_one("levels", self.levels)
            for level in self.levels:
                _check_level(self.generator, level)
            if -1 in (self.sft, self.rl, self.benchmark):
                raise ValueError("a generator has no end: give a number of rows instead of -1")
            if self.grading is not None:
                raise ValueError("grading: a generator's rows are none of NeMo Gym's; take it out")
        elif self.brief:
            raise ValueError("brief: only a generator's demonstrations can be shortened; take it out")
        if not self.evaluated and not self.benchmark:
            raise ValueError("evaluated: there is no benchmark; take it out")
        if self.held_out and self.benchmark <= 0:
            raise ValueError("held_out: adds to a benchmark of a given size; give benchmark a number of rows")
        if self.gym_url is not None:
            from cascade.environments.gym_server import is_server_url  # brings httpx, and few recipes have a server

            if self.generator is not None:
                raise ValueError("gym_url: a server judges rows of path or dataset, not a generator's; take it out")
            if not is_server_url(self.gym_url):
                raise ValueError(f"gym_url: {self.gym_url!r} is not of the form http://host:port")
        elif self.environment == "gym_server":
            raise ValueError("environment gym_server needs gym_url, the server's address")
        return self


class Decontamination(Section):
    ngram: Count = 13
    """Word n-grams shared with a benchmark prompt make a row suspect (n of the longest run looked for)."""
    similarity: Share = 0.9
    """Share of a benchmark prompt's n-grams that the row has, or string similarity, from which the row is dropped."""


class Difficulty(Section):
    """Pass rate of a reference checkpoint on the RL prompts; prompts outside the range are dropped. The checkpoint
    alone, `difficulty: base`, keeps the prompts that some rollouts solve and some do not."""

    checkpoint: str
    rollouts: Count = 8
    minimum: float = 0.0
    keep_unsolved: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the prompts without a solved rollout that is kept: most of them give no advantage for a long time."""
    maximum: float = 1.0

    @model_validator(mode="before")
    @classmethod
    def _by_checkpoint(cls, given: Any) -> Any:
        return {"checkpoint": given, "keep_unsolved": 0.0, "maximum": 0.999} if isinstance(given, str) else given


class Mixture(Section):
    """How much of each source's conversations is packed; by default all, once."""

    unit: Literal["tokens", "rows"] = "tokens"
    """Of `caps` and `weights`."""
    caps: dict[str, Count] = Field(default={})
    """Source → the most that it gives, before epochs."""
    epochs: dict[Name, Annotated[float, Field(gt=0)]] = Field(default={})
    """Domain → how often its conversations are packed; 0.5 packs half of them, 2.5 half of them three times."""
    weights: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    """Source → its part of the mixture: as much is packed as these proportions allow. Sources without a weight are
    packed whole."""


class Curation(Section):
    sources: dict[str, Source]
    max_tokens: Count
    """Conversations longer than this are rejected, in tokens."""
    sequence_length: Count
    """Length of a packed SFT sequence, in tokens."""
    near_duplicate: Share = 0.9
    """Jaccard similarity of word shingles from which a row counts as a near-duplicate."""
    decontamination: Decontamination = Decontamination()
    difficulty: Difficulty | None = None
    mixture: Mixture = Mixture()

    @property
    def domains(self) -> list[str]:
        """Every domain with a benchmark that checkpoints are evaluated on, in the order of the sources."""
        found = (source.domain for source in self.sources.values() if source.benchmark and source.evaluated)
        return list(dict.fromkeys(found))

    @model_validator(mode="after")
    def _a_conversation_fits(self) -> "Curation":
        if self.max_tokens > self.sequence_length:
            raise ValueError(
                f"max_tokens {self.max_tokens} is more than sequence_length {self.sequence_length}; "
                "a conversation must fit into one sequence"
            )
        return self

    @model_validator(mode="after")
    def _mixture_of_sources(self) -> "Curation":
        packed = [name for name, source in self.sources.items() if source.sft]
        domains = sorted({self.sources[name].domain for name in packed})
        for key, named, known, kind in (
            ("caps", self.mixture.caps, packed, "source"),
            ("weights", self.mixture.weights, packed, "source"),
            ("epochs", self.mixture.epochs, domains, "domain"),
        ):
            if unknown := next((name for name in named if name not in known), None):
                raise ValueError(f"mixture.{key}: no {kind} {unknown} has rows for sft; known: {', '.join(known)}")
        return self
