"""The common form of rows of all sources during curation."""

import json
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

from cascade import chat
from cascade.chat import Message, Response, ToolCall
from cascade.curation.encoding import Example
from cascade.curation.text import normalise
from cascade.errors import RowError

Use = Literal["benchmark", "rl", "sft", "held_out"]
USES: tuple[Use, ...] = ("benchmark", "rl", "sft", "held_out")
"""Uses of rows, in the order of drawing: benchmarks first, so that other rows can be checked against them; what is
generated for `held_out` last, so that it gives way to the training rows, which do not depend on how much is asked."""

_MALFORMED = (AttributeError, KeyError, TypeError, ValueError, IndexError)
"""Exceptions of reading a field of the wrong type."""

_BOXED = "Put the final answer within \\boxed{}."

_IDENTITY = json.JSONEncoder(ensure_ascii=True, sort_keys=True)
_AS_IT_IS = json.JSONEncoder(ensure_ascii=False)


@dataclass(slots=True)
class Candidate:
    """A row under curation: a conversation for SFT, or a prompt to be verified (`gym`, NeMo Gym's row)."""

    use: Use
    source: str
    domain: str
    level: int
    messages: list[Message]
    """SFT: the whole conversation; otherwise the prompt."""
    tools: list[dict] | None
    gym: dict[str, Any] | None = None
    answer: Response | None = None
    """The demonstration at the end of `messages`, where `gym` can verify it; an episode's with all its calls."""
    environment: str | None = None
    examples: list[Example] = field(default_factory=list)
    """SFT: the tokens, one conversation a user message."""
    tokens: int = 0
    pass_rate: float | None = None
    texts: list[str] = field(init=False)
    """The text of each message (`message_text`)."""
    plain: list[str] = field(init=False)
    """The same, normalised."""
    id: str = field(init=False)
    """Hash of the normalised prompt (everything up to the last user message) and its tools, 32 hex digits."""

    def __post_init__(self) -> None:
        self.texts = list(map(message_text, self.messages))
        self.plain = list(map(normalise, self.texts))
        last = len(self.messages) - 1
        while last >= 0 and self.messages[last]["role"] == "assistant":
            last -= 1
        prompt = [[m["role"], text] for m, text in zip(self.messages[: last + 1], self.plain, strict=False)]
        identity = _IDENTITY.encode([prompt, self.tools])
        self.id = blake2b(identity.encode(), digest_size=16).hexdigest()

    @property
    def text(self) -> str:
        """The text by which duplicates are found, normalised: all messages except system messages (boilerplate)."""
        texts = (text for m, text in zip(self.messages, self.plain, strict=True) if m["role"] != "system" and text)
        return " ".join(texts)

    @property
    def questions(self) -> tuple[str, ...]:
        """The user messages, normalised."""
        return tuple(text for m, text in zip(self.messages, self.plain, strict=True) if m["role"] == "user")

    @property
    def tools_text(self) -> str:
        return _IDENTITY.encode(self.tools) if self.tools else ""

    @property
    def content(self) -> dict[str, Any]:
        """The row as it is kept."""
        return self.gym or {"messages": self.messages, "tools": self.tools}


def parse(raw: dict[str, Any], use: Use, source: str, domain: str, environment: str | None) -> Candidate:
    """A row in any of the forms that are read, as a candidate for one use.

    Forms: NeMo Gym's (`responses_create_params`; for SFT also `demonstration`), chat (`messages`), and question
    and answer (GSM8K's: `answer` ends in `#### N`). `environment` is the one of rows that do not name theirs.

    Raises RowError: `unknown_form`, `no_verifier` (a chat row as a prompt), `no_demonstration`, `no_final_answer`,
    `bad_row` (a field of the wrong type), and those of `chat.prompt_of`.
    """
    try:
        if "responses_create_params" in raw:
            return _from_gym(raw, use, source, domain, environment)
        if "messages" in raw:
            return _from_chat(raw, use, source, domain)
        if isinstance(raw.get("question"), str) and isinstance(raw.get("answer"), str):
            return _from_gym(_gym_of_question(raw), use, source, domain, environment)
    except _MALFORMED as error:
        raise RowError("bad_row", f"a field of the wrong type ({type(error).__name__}: {error})") from None
    raise RowError("unknown_form", "neither `responses_create_params`, `messages`, nor `question` and `answer` as text")


def message_text(message: Message) -> str:
    """Reasoning, content and tool calls of a message as one text."""
    reasoning, content, calls = message.get("reasoning_content"), message["content"], message.get("tool_calls")
    if not calls:
        return f"{reasoning}\n{content}" if reasoning and content else reasoning or content or ""
    parts = (reasoning, content, *(as_json(call["function"]) for call in calls))
    return "\n".join(part for part in parts if part)


def as_json(value: Any) -> str:
    """JSON with texts as they are, as it is kept."""
    return _AS_IT_IS.encode(value)


def _from_gym(raw: dict, use: Use, source: str, domain: str, environment: str | None) -> Candidate:
    messages, tools = chat.prompt_of(raw)
    gym = {key: value for key, value in raw.items() if key != "demonstration"}
    if environment and not (gym.get("environment") or gym.get("environment_name") or gym.get("agent_ref")):
        gym["environment"] = environment
    level = int(raw.get("level") or 0)
    if use != "sft":
        return Candidate(use, source, domain, level, messages, tools, gym)
    demonstration = raw.get("demonstration")
    if not isinstance(demonstration, dict):
        raise RowError("no_demonstration", "a prompt row without `demonstration` has nothing to fine-tune on")
    single = [{"role": "assistant", **demonstration, "reasoning_content": demonstration.get("reasoning")}]
    replies = [_message(message) for message in demonstration.get("messages", single)]
    calls = [call["function"] for reply in replies for call in reply.get("tool_calls", [])]
    # An episode is judged by the calls of all its turns (`EpisodeEnvironment.verify`).
    answer = Response(
        replies[-1]["content"],
        replies[-1].get("reasoning_content"),
        tuple(ToolCall(call["name"], call["arguments"]) for call in calls),
    )
    return Candidate(use, source, domain, level, [*messages, *replies], tools, gym, answer)


def _from_chat(raw: dict, use: Use, source: str, domain: str) -> Candidate:
    if use != "sft":
        raise RowError("no_verifier", "a chat row has nothing to verify an answer with; use it for SFT alone")
    tools = raw.get("tools") or None
    tools = json.loads(tools) if isinstance(tools, str) else tools
    return Candidate(use, source, domain, int(raw.get("level") or 0), [_message(m) for m in raw["messages"]], tools)


def _gym_of_question(raw: dict) -> dict:
    reasoning, marker, final = raw["answer"].rpartition("####")
    if not marker or not final.strip():
        raise RowError("no_final_answer", "`answer` does not end in `#### N`")
    final = final.strip().replace(",", "")
    # GSM8K's calculator annotations, <<48/2=24>>, are not text that a model should write.
    steps = "".join(part.partition(">>")[2] if i else part for i, part in enumerate(reasoning.split("<<")))
    return {
        "responses_create_params": {"input": [{"role": "user", "content": f"{raw['question'].strip()}\n\n{_BOXED}"}]},
        "expected_answer": final,
        "demonstration": {"reasoning": steps.strip(), "content": f"\\boxed{{{final}}}"},
    }


def _message(raw: dict) -> Message:
    """A chat message with text content; reasoning written inline as <think>…</think> set apart."""
    role = "system" if raw["role"] == "developer" else raw["role"]
    content = chat.text_of(raw.get("content"))
    reasoning = raw.get("reasoning_content") or raw.get("reasoning") or ""
    if not isinstance(role, str):
        raise TypeError("the role is not text")
    if role == "assistant" and content.startswith("<think>") and "</think>" in content:
        reasoning, _, content = content.removeprefix("<think>").partition("</think>")
    message: Message = {"role": role, "content": content.strip() if role == "assistant" else content}
    if reasoning.strip():
        message["reasoning_content"] = reasoning.strip()
    if raw.get("tool_calls"):
        message["tool_calls"] = [_tool_call(call) for call in raw["tool_calls"]]
    return message


def _tool_call(call: dict) -> dict:
    function = call.get("function") or call
    arguments = chat.json_object(function.get("arguments") or "{}")
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}
