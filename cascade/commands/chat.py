"""`cascade chat`: a conversation with a checkpoint, on the terminal."""

import click

from cascade.chat import Message, encode_prompt, parse_response
from cascade.commands.checkpoints import directory_of
from cascade.layout import Layout
from cascade.policy import make_policy
from cascade.rollout.base import SampleRequest
from cascade.rollout.torch_engine.sampler import TorchSampler
from cascade.utils.seeds import derive_seed


def chat(checkpoint: str, layout: Layout, thinking: bool, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Answer lines of standard input until it ends. The same seed and messages give the same responses.

    Raises CheckpointError where `checkpoint` is neither a node that was built nor a checkpoint directory.
    """
    policy = make_policy("hf", directory_of(checkpoint, layout), None)
    sampler = TorchSampler(policy)
    messages: list[Message] = []
    click.echo("One message a line; an empty line starts over, Ctrl-D ends.", err=True)
    while (line := _read()) is not None:
        if not line:
            messages = []
            click.echo("(a new conversation)", err=True)
            continue
        messages.append({"role": "user", "content": line})
        prompt = encode_prompt(policy.tokenizer, messages, thinking=thinking)
        request = SampleRequest(prompt, derive_seed(seed, "chat", len(messages)))
        [sample] = sampler.sample([request], max_new_tokens=max_new_tokens, temperature=temperature)
        text = str(policy.tokenizer.decode(sample.token_ids, skip_special_tokens=False))
        response = parse_response(
            text.removesuffix(str(policy.tokenizer.eos_token)), thinking=thinking, finished=sample.finished
        )
        if response.reasoning:
            click.secho(response.reasoning, dim=True)
        click.echo(response.content)
        for call in response.tool_calls:
            click.echo(f"→ {call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})")
        if not sample.finished:
            click.secho(f"(cut off after {max_new_tokens} tokens)", dim=True)
        messages.append({"role": "assistant", "content": response.content})


def _read() -> str | None:
    try:
        return click.prompt("you", default="", show_default=False, prompt_suffix="> ", err=True).strip()
    except click.Abort:
        return None
