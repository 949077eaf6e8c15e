"""A rollout as tokens: turns, each of the tokens before a response and the sampled response."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from cascade.chat import Message, ToolCall, check_prompt, format_of, message_call, turn_markers
from cascade.errors import CascadeError, RowError
from cascade.rollout.base import Sample


@dataclass(frozen=True)
class Turn:
    context: list[int]
    """Tokens between the last turn and this response: the prompt, or the environment's answer and the header of the
    assistant's next turn."""
    sample: Sample


@dataclass(frozen=True)
class Transcript:
    """The token stream of a rollout. Tokens are only appended: sampled tokens stay as they were sampled, also where
    rendering a later turn would leave them out (such as earlier reasoning)."""

    turns: list[Turn]
    finished: bool
    """False: truncated by a limit on a response's tokens, on turns or on the context."""

    @property
    def token_ids(self) -> list[int]:
        return [token for turn in self.turns for token in (*turn.context, *turn.sample.token_ids)]

    @property
    def trained(self) -> list[bool]:
        """Loss mask: of each token, whether the model sampled it. The environment's tokens are never trained on."""
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
        """Number of trained tokens."""
        return sum(len(turn.sample.token_ids) for turn in self.turns)

    def text(self, tokenizer: PreTrainedTokenizerBase) -> str:
        """The text after the prompt, without the final end-of-turn token."""
        token_ids = self.token_ids[len(self.turns[0].context) :]
        if self.turns[-1].sample.finished:
            token_ids.pop()
        return text_of(tokenizer, token_ids)


def response_text(tokenizer: PreTrainedTokenizerBase, sample: Sample) -> str:
    """The text sampled in one turn, without the end-of-turn token."""
    return text_of(tokenizer, sample.token_ids[:-1] if sample.finished else sample.token_ids)


def text_of(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def render_answer(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, thinking: bool, calls: Sequence[ToolCall] = ()
) -> str:
    """The environment's messages as the chat template renders them after an assistant's end-of-turn token, up to
    where the assistant writes again. `calls`: those that the messages answer; templates show their names or ids.

    Turn markers in their text are broken up, so that the content of a file cannot start another role's turn. Raises
    CascadeError where the template does not continue what it has rendered, or does not show the messages.
    """
    safe = [{**message, "content": _without_markers(tokenizer, message["content"])} for message in messages]
    # Templates refuse calls that a model may write: several at once, an id of another length, none before a result.
    plain = [ToolCall(call.name, call.arguments) for call in calls[-1:]]
    reasons = []
    for answered in (calls, plain, (), (ToolCall("tool", {}),)):
        # The rendering does not depend on the conversation before it, so a short one is used.
        history: list[Message] = [{"role": "user", "content": "."}, {"role": "assistant", "content": "."}]
        if answered:
            history[1]["tool_calls"] = [message_call(call) for call in answered]
        try:
            text = format_of(tokenizer).continuation(history, safe, thinking=thinking)
            check_prompt(safe, None, text)
            return text
        except RowError as error:
            reasons.append(str(error))
    raise CascadeError(f"{tokenizer.name_or_path}: {reasons[0]}; episodes need a template that does")


def _without_markers(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return turn_markers(tokenizer).sub(lambda marker: f"{marker[0][0]} {marker[0][1:]}", text)
