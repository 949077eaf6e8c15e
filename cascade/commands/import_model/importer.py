"""The import itself: template, special tokens, end of a turn, and a table of what the model can be trained for."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from cascade import chat
from cascade.commands.import_model import loading
from cascade.commands.import_model.capabilities import Capability, capabilities
from cascade.errors import CascadeError, CheckpointError
from cascade.policy import make_policy
from cascade.policy.checkpoint import save_checkpoint
from cascade.utils.files import write_atomic

_TEMPLATES = Path(__file__).parent / "templates"
_NEMOTRON = Path(__file__).parents[2] / "pretraining" / "chat_template.jinja"
TEMPLATES = ("hermes", "nemotron", "qwen3")
"""hermes: ChatML, calls as JSON, no thinking. qwen3: the same with thinking. nemotron: thinking, calls as XML."""
TAGS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""What `--add-tokens` makes single tokens of."""

_MARKERS = re.compile(r"<\|[a-z_]+\|>")


def import_model(
    source: str,
    out: Path,
    chat_template: str | None = None,
    add_tokens: bool = False,
    dtype: str | None = None,
) -> Iterator[str]:
    """Write the checkpoint `out`; yields what was found and changed, one line each, then the table.

    `chat_template`: a name in TEMPLATES or a Jinja file. Tokens that begin and end its turns are added where the
    tokenizer lacks them, TAGS with `add_tokens`. Raises CascadeError where the model cannot be trained at all.
    """
    if out.exists():
        raise CascadeError(f"{out}: exists already; choose another --out, or remove it first")
    loaded = loading.load(source, None if dtype is None else getattr(torch, dtype))
    model, tokenizer = loaded.model, loaded.tokenizer
    yield f"{source}: {type(model).__name__}, {_millions(model)} parameters, {_name(model.dtype)} ({loaded.origin})"
    if chat_template is not None:
        tokenizer.chat_template = template(chat_template)
        yield f"chat template: {chat_template}"
    elif not tokenizer.chat_template:
        raise CascadeError(
            f"{source}: it has no chat template; give one: --chat-template {'|'.join(TEMPLATES)} or a file"
        )
    if chat_template is not None or add_tokens:
        wanted = _MARKERS.findall(str(tokenizer.chat_template)) if chat_template is not None else []
        yield from _add(model, tokenizer, [*dict.fromkeys(wanted), *(TAGS if add_tokens else ())])
    yield from _end_of_turn(model, tokenizer, source)
    yield from _vocabulary(model, tokenizer, source)
    save_checkpoint(model, tokenizer, out)
    if loaded.card is not None:
        write_atomic(out / "README.md", loaded.card.read_text(encoding="utf-8"))
    try:
        make_policy("hf", out, None)
        yield "engine hf computes its logits as transformers does"
    except CheckpointError as error:
        yield f"engine hf refuses it: {error}"
    yield ""
    yield from table(model, capabilities(tokenizer))
    yield f"written to {out}"


def template(name: str) -> str:
    """The text of a template of TEMPLATES or of a file. Raises CascadeError naming the known ones."""
    if name == "nemotron":
        return _NEMOTRON.read_text(encoding="utf-8")
    if name in TEMPLATES:
        hermes = (_TEMPLATES / "hermes.jinja").read_text(encoding="utf-8")
        return hermes if name == "hermes" else "{%- set reasons = true %}\n" + hermes
    if not Path(name).is_file():
        raise CascadeError(f"--chat-template {name}: neither a file nor one of {', '.join(TEMPLATES)}")
    return Path(name).read_text(encoding="utf-8")


def table(model: PreTrainedModel, found: Sequence[Capability]) -> Iterator[str]:
    """What the model can be trained for."""
    width = max(len(capability.name) for capability in found)
    yield f"{'it expresses':{width}}  "
    for capability in found:
        lost = capability.problem
        yield f"{capability.name:{width}}  {'yes' if lost is None else f'no: {lost}; not for {capability.needed_by}'}"
    yield f"{'context':{width}}  {_context(model)}"
    if any(capability.problem for capability in found):
        yield f"another template expresses more: --chat-template {'|'.join(TEMPLATES)} or a file"


def _add(model: Any, tokenizer: PreTrainedTokenizerBase, tokens: Sequence[str]) -> Iterator[str]:
    """Add the tokens that are not single ones yet. A new token's embedding is the mean of those of its pieces."""
    known = tokenizer.get_vocab()
    missing = [token for token in tokens if token not in known]
    if not missing:
        return
    pieces = [chat.encode(tokenizer, token) for token in missing]
    markers = [token for token in missing if token not in TAGS]
    tokenizer.add_special_tokens({"additional_special_tokens": markers}, replace_extra_special_tokens=False)
    tokenizer.add_tokens([token for token in missing if token in TAGS])
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    matrices = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings())}
    with torch.no_grad():
        for matrix in matrices.values():
            for token, ids in zip(missing, pieces, strict=True):
                matrix[tokenizer.convert_tokens_to_ids(token)] = matrix[ids].mean(0)
    yield f"tokens added: {' '.join(missing)}"


def _end_of_turn(model: Any, tokenizer: PreTrainedTokenizerBase, source: str) -> Iterator[str]:
    """Make the token that ends the template's turns the end of a response, and see that there is a padding token."""
    old, end = tokenizer.eos_token, chat.format_of(tokenizer).end
    if end not in tokenizer.get_vocab():
        raise CascadeError(
            f"{source}: the chat template ends an answer with {end!r}, which is no token, so that a response has no "
            "end; give another: --chat-template"
        )
    if end != old:
        text = tokenizer.chat_template
        if old and isinstance(text, str) and "eos_token" in text:  # Phi-3 ends conversations, not turns, with it.
            tokenizer.chat_template = f"{{%- set eos_token = {json.dumps(old)} %}}\n{text}"
        tokenizer.eos_token = end
        yield f"end of a response: {end}, which ends the template's turns (was {old})"
    else:
        yield f"end of a response: {end}"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = end
        yield f"padding: {end} (it had none)"
    number = tokenizer.convert_tokens_to_ids(end)
    settings = model.generation_config or GenerationConfig()
    given = settings.eos_token_id
    known = [given] if isinstance(given, int) else list(given or [])
    ids = list(dict.fromkeys([number, *known]))
    model.config.eos_token_id = number
    model.config.pad_token_id = tokenizer.pad_token_id
    settings.eos_token_id = ids if len(ids) > 1 else number
    settings.pad_token_id = tokenizer.pad_token_id
    model.generation_config = settings
    drawn = {
        k: getattr(settings, k) for k in ("temperature", "top_p", "top_k") if getattr(settings, k, None) is not None
    }
    words = ", ".join(f"{k} {v:g}" for k, v in drawn.items()) or "none of its own"
    yield f"generation config: ends at {ids}; sampling settings: {words} (a recipe's `rollout` has its own)"


def _vocabulary(model: Any, tokenizer: PreTrainedTokenizerBase, source: str) -> Iterator[str]:
    rows = model.get_input_embeddings().num_embeddings
    if len(tokenizer) > rows:
        raise CheckpointError(f"{source}: its tokenizer has {len(tokenizer)} tokens, the model embeds {rows}")
    padded = f", padded to {rows:,}" if rows > len(tokenizer) else ""
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    tied = "the output matrix is the embedding" if head is embedding else "the output matrix is its own"
    if head is not embedding and head.shape == embedding.shape and torch.equal(head, embedding):
        tied += ", though equal to the embedding (config.json: tie_word_embeddings)"
    yield f"vocabulary: {len(tokenizer):,} tokens{padded}; {tied}"


def _context(model: Any) -> str:
    longest = getattr(model.config, "max_position_embeddings", None)
    return f"{longest:,} tokens" if longest else "no limit in config.json"


def _millions(model: PreTrainedModel) -> str:
    count = sum(parameter.numel() for parameter in model.parameters())
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
