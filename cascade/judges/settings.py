"""The recipe's section on judge models."""

from typing import Annotated, Any

from pydantic import Field

from cascade.utils.config import Count, Section


class JudgeEndpoint(Section):
    """A model that judges, behind the OpenAI chat API (vLLM, NIM, …). The server's key, where it needs one, is in
    the environment variable JUDGE_API_KEY."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Up to and including /v1."""
    model: str
    max_tokens: Count = 16384
    """Largest length of an answer, reasoning included."""
    concurrency: Count = 64
    """Concurrent requests."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 600
    """Timeout of one request."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that its verdicts depend on: not where it runs, nor its concurrency."""
        return self.model_dump(mode="json", exclude={"url", "concurrency", "timeout_seconds"})


class PreferenceEndpoint(JudgeEndpoint):
    roles: bool = False
    """The model takes the responses in the roles response_1 and response_2, as NVIDIA's GenRM models do."""


class ProofEndpoint(JudgeEndpoint):
    grades: Count = 64
    """How often each proof is graded; one zero makes it zero."""


class Judges(Section):
    """Judge models, for rewards that no rule decides. The nano recipe needs none."""

    preference: PreferenceEndpoint | None = None
    """Compares two responses: a generative reward model."""
    answer: JudgeEndpoint | None = None
    """Compares an answer with the reference answer."""
    patch: JudgeEndpoint | None = None
    """Says how likely a patch is to resolve an issue, where there are no tests to run: a generative reward model."""

    proof: ProofEndpoint | None = None
    """Grades proofs in prose, which no rule can check."""

    @property
    def named(self) -> dict[str, JudgeEndpoint]:
        """Kind → judge, for the recipe's judges."""
        return {kind: judge for kind in type(self).model_fields if (judge := getattr(self, kind)) is not None}

    @property
    def inputs(self) -> dict[str, Any]:
        """Their part of a result's inputs; empty without judges."""
        identities = {kind: judge.identity for kind, judge in self.named.items()}
        return {"judges": identities} if identities else {}

    @property
    def concurrency(self) -> int:
        return max((judge.concurrency for judge in self.named.values()), default=0)
