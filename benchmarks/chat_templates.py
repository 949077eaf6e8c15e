"""Which conversations chat templates express: twelve kinds, rendered and parsed back, or refused with a reason.

    python -m benchmarks.chat_templates [FILE.jinja …]

Without files, the templates of popular models that TRL brings (`pip install trl`), as their authors published them.
A template's special tokens are those that it names.
"""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cascade import chat
from cascade.chat import Message, ToolCall, message_call
from cascade.errors import CascadeError, RowError

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": 'Tells the weather of a "place".',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Where."},
                    "days": {"type": "integer", "description": "For how many days."},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "note",
            "description": "Keeps a note.",
            "parameters": {
                "type": "object",
                "properties": {"text": {"type": "string", "description": "What to keep."}},
            },
        },
    },
]
OSLO, ROME = ToolCall("weather", {"city": "Oslo"}), ToolCall("weather", {"city": "Rome", "days": 2})
NOTE = ToolCall("note", {"text": "umbrella"})
EVERY_TYPE = ToolCall(
    "note",
    {
        "text": 'two\nlines, "quotes", it\'s <b>&amp;</b> \\ °C 你好',
        "number": -3,
        "share": 2.5,
        "digits": "007",
        "yes": True,
        "none": None,
        "empty": "",
        "list": [1, "a", {"deep": [False]}],
    },
)
AWKWARD = 'A list:\n\n- it\'s "quoted" \\ <b>bold</b> & {{ braces }} {"json": [1]}\n\n```\ncode  \n```\n°C 你好 🙂'


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(content: str, *calls: ToolCall, thought: str = "") -> Message:
    message: Message = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = [message_call(call) for call in calls]
    return message


def result(text: str) -> Message:
    return {"role": "tool", "content": text}


ASKED = user("Weather in Oslo?")
KINDS: dict[str, tuple[list[Message], list[dict] | None]] = {
    "one turn": ([ASKED, assistant("Rain.")], None),
    "system": ([{"role": "system", "content": "Be brief."}, ASKED, assistant("Rain.")], None),
    "several turns": ([ASKED, assistant("Rain."), user("And in Rome?"), assistant("Sun.")], None),
    "awkward text": ([user(AWKWARD), assistant(AWKWARD)], None),
    "thinking": ([ASKED, assistant("Rain.", thought="It is autumn.\n\nSo rain.")], None),
    "tools": ([ASKED, assistant("I do not know.")], TOOLS),
    "call": ([ASKED, assistant("", OSLO)], TOOLS),
    "text and call": ([ASKED, assistant("I look it up.", OSLO)], TOOLS),
    "several calls": ([user("Oslo and Rome?"), assistant("", OSLO, ROME)], TOOLS),
    "arguments": ([user("Note this."), assistant("", EVERY_TYPE)], TOOLS),
    "results": (
        [
            user("Oslo and then Rome?"),
            assistant("", OSLO),
            result('{"sky": "rain"}'),
            assistant("", ROME),
            result("sun"),
            assistant("Rain, then sun."),
        ],
        TOOLS,
    ),
    "thinking and results": (
        [
            ASKED,
            assistant("", OSLO, thought="I ask."),
            result("rain"),
            assistant("Rain.", thought="It says rain."),
            user("Remind me."),
            assistant("", NOTE, thought="A note."),
            result("kept"),
            assistant("I will."),
        ],
        TOOLS,
    ),
}
_TOKENS = re.compile(
    r"<\|[^|>{}' ]+\|?>|<[a-z_]+\|>|<｜[^｜]+｜>|\[/?[A-Z_]+\]|</?s>|<eos>|<bos>|<(?:start|end)_of_turn>|<pad>"
)
_MARKUP = re.compile(r"</?(?:think|tool_call|tool_response)>")
"""Tokens of many vocabularies that are not special."""


def tokenizer_of(template: str, eos: str, response_template: dict[str, Any] | None = None) -> PreTrainedTokenizerFast:
    """Byte by byte, but for the tokens that the template names."""
    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(vocab=letters, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(
        [AddedToken(token, normalized=False) for token in dict.fromkeys(_TOKENS.findall(template))]
    )
    inner.add_tokens([AddedToken(token, normalized=False) for token in dict.fromkeys(_MARKUP.findall(template))])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token=eos, pad_token="<pad>")
    made.chat_template = template
    made.response_template = response_template
    return made


def outcome(tokenizer: PreTrainedTokenizerFast, messages: list[Message], tools: list[dict] | None) -> str | None:
    """None where every turn is encoded and nothing of it lost, else the reason for which the row is refused."""
    try:
        for turn in chat.split_turns(messages):
            conversation = chat.encode_conversation(tokenizer, turn, tools)
            text = "".join(context + reply for context, reply in chat.replies(tokenizer, turn, tools))
            assert tokenizer.decode(conversation.token_ids) == text, "the tokens are not the text"
    except RowError as error:
        return error.code
    return None


def main(files: list[str]) -> None:
    paths = [Path(file) for file in files] or _installed()
    width = max(len(path.stem) for path in paths)
    print(f"{'template':{width}}  calls      end  ", *KINDS, sep=" | ")
    for path in paths:
        template = path.read_text(encoding="utf-8")
        tokenizer = tokenizer_of(template, _eos(template))
        try:
            chat_format = chat.format_of(tokenizer)
        except CascadeError as error:
            print(f"{path.stem:{width}}  {error}")
            continue
        ends = " ".join(dict.fromkeys([chat_format.end, chat_format.call_end]))
        dialect = chat_format.dialect.name if chat_format.dialect else "-"
        found = [(outcome(tokenizer, *KINDS[kind]) or "kept").removeprefix("template_loses_") for kind in KINDS]
        print(f"{path.stem:{width}}  {dialect:9}  {ends}", *found, sep=" | ")


def _eos(template: str) -> str:
    """What tokenizers of this family have; only Phi-3 and GLM-4 write another token at the end of a turn."""
    for token in ("<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>", "<end_of_turn>", "<|return|>", "<turn|>"):
        if token in template:
            return "<eos>" if token == "<end_of_turn>" else token
    return "</s>" if "[INST]" in template else "<|endoftext|>"


def _installed() -> list[Path]:
    found = find_spec("trl")
    if found is None or found.origin is None:
        raise SystemExit("no templates given, and TRL is not installed (pip install trl)")
    folder = Path(found.origin).parent / "chat_templates"
    return sorted(path for path in folder.glob("*.jinja") if not path.stem.endswith("_training"))


if __name__ == "__main__":
    main(sys.argv[1:])
