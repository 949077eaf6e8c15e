"""The recipe's section on models that judge."""

from typing import Annotated, Any

from pydantic import Field

from cascade.utils.config import Count, Section


class JudgeEndpoint(Section):
    """A model that judges, behind the OpenAI chat API (vLLM, NIM, …). The server's key, where it wants one, stands in
    the environment variable JUDGE_API_KEY."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Up to and including /v1."""
    model: str
    max_tokens: Count = 16384
    """Of an answer, reasoning included."""
    concurrency: Count = 64
    """Requests under way at once."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """Of one request."""

    @property
    def identity(self) -> dict[str, Any]:
        """What its verdicts depend on; where it runs and how fast it is asked do not count."""
        return self.model_dump(mode="json", exclude={"url", "concurrency", "timeout_seconds"})


class PreferenceEndpoint(JudgeEndpoint):
    roles: bool = False
    """The model takes the responses in the roles response_1 and response_2, as NVIDIA's GenRM models do."""


class Judges(Section):
    """Who judges where no rule can. Nano's generated rows need none."""

    preference: PreferenceEndpoint | None = None
    """Compares two responses: a generative reward model."""
    answer: JudgeEndpoint | None = None
    """Compares an answer with the reference answer."""
    patch: JudgeEndpoint | None = None
    """Says how likely a patch is to resolve an issue, where there are no tests to run: a generative reward model."""

    @property
    def named(self) -> dict[str, JudgeEndpoint]:
        """Those that the recipe has, by kind."""
        return {kind: judge for kind in type(self).model_fields if (judge := getattr(self, kind)) is not None}

    @property
    def inputs(self) -> dict[str, Any]:
        """Their part in what a result was made from; nothing where nobody judges."""
        found = {kind: judge.identity for kind, judge in self.named.items()}
        return {"judges": found} if found else {}

    @property
    def concurrency(self) -> int:
        return max((judge.concurrency for judge in self.named.values()), default=0)
