"""A rollout as tokens: turns, each of what the model read and what it then wrote."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from cascade.chat import Message, encode, render, turn_markers
from cascade.errors import CascadeError
from cascade.rollout.base import Sample


@dataclass(frozen=True)
class Turn:
    context: list[int]
    """What came before the response since the last turn: the prompt, or the environment's answer and the opening of
    the assistant's next turn."""
    sample: Sample


@dataclass(frozen=True)
class Transcript:
    """The token stream of a rollout. It only ever grows: what was sampled stands in it as it was sampled, and nothing
    that a later turn's rendering would leave out (such as earlier reasoning) is taken away."""

    turns: list[Turn]
    finished: bool
    """False: cut off by a limit, of a response's tokens, of turns or of tokens in all."""

    @property
    def token_ids(self) -> list[int]:
        return [token for turn in self.turns for token in (*turn.context, *turn.sample.token_ids)]

    @property
    def trained(self) -> list[bool]:
        """Of each token: whether the model wrote it. The environment's are never trained on."""
        return [
            trained
            for turn in self.turns
            for trained in [False] * len(turn.context) + [True] * len(turn.sample.token_ids)
        ]

    @property
    def log_probs(self) -> list[float]:
        """Of the trained tokens, log π_inf in nats."""
        return [value for turn in self.turns for value in turn.sample.log_probs]

    @property
    def length(self) -> int:
        """Trained tokens."""
        return sum(len(turn.sample.token_ids) for turn in self.turns)

    def text(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """What follows the prompt, the end-of-turn token at its end left out."""
        token_ids = self.token_ids[len(self.turns[0].context) :]
        if self.turns[-1].sample.finished:
            token_ids.pop()
        return text_of(tokenizer, token_ids)


def response_text(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> str:
    """What was sampled in one turn, without the end-of-turn token."""
    return text_of(tokenizer, sample.token_ids[:-1] if sample.finished else sample.token_ids)


def text_of(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def encode_answer(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, thinking: bool) -> list[int]:
    """The environment's messages as the chat template renders them after an assistant's end-of-turn token, up to
    where the assistant writes again.

    Turn markers in their text are broken up: what stands in a file must not pass for another speaker. Raises
    CascadeError where the template does not continue what it has rendered.
    """
    # Which conversation comes before makes no difference to what comes after, so a short one stands for it.
    before: list[Message] = [{"role": "user", "content": "."}, {"role": "assistant", "content": "."}]
    safe = [{**message, "content": _without_markers(tokenizer, message["content"])} for message in messages]
    ended, end, _ = render(tokenizer, before).rpartition(tokenizer.eos_token)
    head = ended + end
    text = render(tokenizer, [*before, *safe], thinking=thinking, for_generation=True)
    if not (end and text.startswith(head)):
        raise CascadeError(
            f"{tokenizer.name_or_path}: the chat template does not render an environment's answer as a continuation "
            "of the conversation; episodes need one that does"
        )
    return encode(tokenizer, text[len(head) :])


def _without_markers(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return turn_markers(tokenizer).sub(lambda marker: f"{marker[0][0]} {marker[0][1:]}", text)
