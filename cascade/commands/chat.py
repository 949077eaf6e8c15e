"""`cascade chat`: a conversation with a checkpoint, on the terminal."""

from pathlib import Path

import click

from cascade.chat import Message, encode, format_of, render
from cascade.errors import CheckpointError
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.rollout.transcript import response_text
from cascade.utils.seeds import derive_seed


def chat(checkpoint: str, layout: Layout, thinking: bool, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Answer lines of standard input until it ends. The same seed and messages give the same responses.

    Raises CheckpointError where `checkpoint` is neither a node that was built nor a checkpoint directory.
    """
    policy = make_policy("hf", _directory(checkpoint, layout), None)
    sampler = TorchSampler(policy)
    messages: list[Message] = []
    click.echo("One message a line; an empty line starts over, Ctrl-D ends.", err=True)
    while (line := _read()) is not None:
        if not line:
            messages = []
            click.echo("(a new conversation)", err=True)
            continue
        messages.append({"role": "user", "content": line})
        prompt = render(policy.tokenizer, messages, thinking=thinking, for_generation=True)
        request = SampleRequest(encode(policy.tokenizer, prompt), derive_seed(seed, "chat", len(messages)))
        [sample] = sampler.sample([request], max_new_tokens=max_new_tokens, temperature=temperature)
        text = response_text(policy.tokenizer, sample)
        response = format_of(policy.tokenizer).parse(text, prompt, finished=sample.finished)
        if response.reasoning:
            click.secho(response.reasoning, dim=True)
        click.echo(response.content)
        for call in response.tool_calls:
            click.echo(f"→ {call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})")
        if not sample.finished:
            click.secho(f"(cut off after {max_new_tokens} tokens)", dim=True)
        messages.append({"role": "assistant", "content": response.content})


def _directory(checkpoint: str, layout: Layout) -> Path:
    for path in (layout.checkpoint(checkpoint), Path(checkpoint)):
        if (path / "config.json").is_file():
            return path
    nodes = sorted(p.parent.name for p in layout.checkpoint("").glob("*/config.json"))
    raise CheckpointError(
        f"{checkpoint}: neither a node that was built ({', '.join(nodes) or 'none yet'}) nor a checkpoint directory"
    )


def _read() -> str | None:
    try:
        return click.prompt("you", default="", show_default=False, prompt_suffix="> ", err=True).strip()
    except click.Abort:
        return None
