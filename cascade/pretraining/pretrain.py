"""Pretraining of a base model from random weights: next-token prediction over the documents of the mixture.

Answer tokens have weight 1 in the loss, prompt tokens `prompt_weight`. Experts are balanced by the router's correction
bias, updated after each step from the load (arXiv 2408.15664), without an auxiliary loss.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from transformers import NemotronHConfig, NemotronHForCausalLM, PreTrainedTokenizerBase

from cascade.errors import RecipeError
from cascade.policy.blocks import Block
from cascade.policy.checkpoint import save_checkpoint
from cascade.policy.nemotron_h import hidden_states
from cascade.pretraining import mixture
from cascade.pretraining.sources import GENERATORS
from cascade.pretraining.tokenizer import train_tokenizer
from cascade.utils.config import Count
from cascade.utils.files import publish_directory, write_json
from cascade.utils.seeds import derive_seed

BLOCKS = {"cpu": 6, "cuda": 3}
"""Number of blocks of a batch. GPUs get fewer: there padding costs less than the kernel launches of more blocks."""


class Training(BaseModel):
    model_config = ConfigDict(extra="forbid")
    batch_documents: Count
    steps: Count
    learning_rate: float
    warmup_steps: int
    min_learning_rate: float
    betas: tuple[float, float]
    weight_decay: float
    gradient_clip: float
    prompt_weight: float
    router_bias_rate: float


class BaseRecipe(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    seed: int
    vocabulary: Annotated[int, Field(gt=0, lt=mixture.TRAINED)]
    max_length: Count
    tokenizer_rows: Count
    model: dict[str, Any]
    mixture: dict[str, dict[int, Count]]
    hasty: Annotated[float, Field(ge=0, le=1)]
    direct: Annotated[float, Field(ge=0, le=1)]
    training: Training


def load_base_recipe(path: Path) -> BaseRecipe:
    """Read a base recipe. Raises RecipeError that names the file and the key."""
    try:
        recipe = BaseRecipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise RecipeError(f"{path}: {key or 'the file'}: {problem['msg']}") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    unknown = set(recipe.mixture) - set(GENERATORS)
    if unknown:
        raise RecipeError(f"{path}: mixture: unknown source {sorted(unknown)[0]!r}; known: {', '.join(GENERATORS)}")
    return recipe


def pretrain(recipe_path: Path, out: Path, *, device: str, processes: int, say: Callable[[str], None] = print) -> None:
    """Write a base checkpoint and its `pretraining.json` (tokens, loss curve, seconds) to `out`."""
    recipe = load_base_recipe(recipe_path)
    started = time.perf_counter()
    tokenizer = make_tokenizer(recipe)
    parts = [
        mixture.Part(source, level, rows) for source, levels in recipe.mixture.items() for level, rows in levels.items()
    ]
    corpus = mixture.build_corpus(
        parts, tokenizer, seed=recipe.seed, hasty=recipe.hasty, direct=recipe.direct, processes=processes
    )
    say(
        f"pretrain: {len(corpus):,} documents, {len(corpus.ids) / 1e6:.1f}M tokens, "
        f"in {time.perf_counter() - started:.0f} s"
    )
    model = make_model(recipe, tokenizer)
    model.to(torch.device(device))  # type: ignore[arg-type]
    say(f"pretrain: {sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters on {device}")
    curve = train(model, corpus, recipe, say)
    model.config.time_step_min = 0.0  # only for initialisation; as a clamp it would make scan and recurrence differ
    scratch = out.with_name(f".{out.name}.new")
    save_checkpoint(model.bfloat16().cpu(), tokenizer, scratch)
    write_json(
        scratch / "pretraining.json",
        {
            "recipe": recipe.name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "documents": len(corpus),
            "corpus_tokens": len(corpus.ids),
            "trained_tokens": curve[-1]["tokens"],
            "seconds": round(time.perf_counter() - started),
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "loss": curve,
        },
    )
    publish_directory(scratch, out)


def make_tokenizer(recipe: BaseRecipe) -> PreTrainedTokenizerBase:
    """A tokenizer trained on a sample of every source, rendered with the chat template."""
    plain = train_tokenizer(["a"], 320, recipe.max_length)
    mixture.use_tokenizer(plain)
    texts = [
        text
        for source, levels in recipe.mixture.items()
        for level in levels
        for document in mixture.documents(
            mixture.Part(source, level, recipe.tokenizer_rows), derive_seed(recipe.seed, "tokenizer"), hasty=0, direct=0
        )
        for text, _ in document.segments
    ]
    return train_tokenizer(texts, recipe.vocabulary, recipe.max_length)


def make_model(recipe: BaseRecipe, tokenizer: PreTrainedTokenizerBase) -> NemotronHForCausalLM:
    torch.manual_seed(derive_seed(recipe.seed, "weights"))
    config = NemotronHConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=recipe.max_length,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **recipe.model,
    )
    return NemotronHForCausalLM(config)


def train(
    model: NemotronHForCausalLM, corpus: mixture.Corpus, recipe: BaseRecipe, say: Callable[[str], None]
) -> list[dict[str, float]]:
    """Train the model. Returns the loss curve: step, tokens so far, mean loss of answer tokens in nats."""
    training = recipe.training
    device = next(model.parameters()).device
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": training.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=training.learning_rate,
        betas=training.betas,
        fused=True,
    )
    routers = [layer.mixer.gate for layer in model.model.layers if layer.block_type == "moe"]
    rng = np.random.default_rng(derive_seed(recipe.seed, "batches"))
    epochs = training.steps * training.batch_documents // len(corpus) + 1
    order = np.concatenate([rng.permutation(len(corpus)) for _ in range(epochs)])
    pad = model.config.pad_token_id or 0
    curve: list[dict[str, float]] = []
    window: list[Tensor] = []
    tokens = 0
    began = time.perf_counter()
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, training)
        documents = order[step * training.batch_documents : (step + 1) * training.batch_documents]
        blocks, flagged_ids = make_blocks(corpus, documents, pad, device, BLOCKS[device.type])
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            forward = hidden_states(model, blocks)
            loss, answer_loss = next_token_loss(model, forward.hidden, flagged_ids, training.prompt_weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for router, load in zip(routers, forward.expert_counts, strict=True):
                load = load.float()
                router.e_score_correction_bias += training.router_bias_rate * torch.sign(load.mean() - load)
        window.append(answer_loss)
        tokens += int((corpus.bounds[documents + 1] - corpus.bounds[documents]).sum())
        if (step + 1) % 100 == 0 or step + 1 == training.steps:
            mean = float(torch.stack(window).mean())
            window.clear()
            seconds = time.perf_counter() - began
            curve.append({"step": step + 1, "tokens": tokens, "loss": round(mean, 4)})
            left = seconds / (step + 1) * (training.steps - step - 1)
            progress = f"step {step + 1}/{training.steps}  loss {mean:.3f}"
            say(f"pretrain: {progress}  {tokens / seconds:,.0f} tok/s  {left:.0f} s left")
    return curve


def make_blocks(
    corpus: mixture.Corpus, chosen: np.ndarray, pad: int, device: torch.device, count: int
) -> tuple[list[Block], list[Tensor]]:
    """The chosen documents in `count` blocks of similar lengths and about as many tokens each, and each block's ids
    with the TRAINED flag."""
    lengths = corpus.bounds[chosen + 1] - corpus.bounds[chosen]
    by_length = chosen[np.argsort(lengths, kind="stable")]
    lengths = np.sort(lengths)
    cuts = np.searchsorted(np.cumsum(lengths), np.linspace(0, lengths.sum(), count + 1)[1:-1])
    blocks, packed = [], []
    for documents, sizes in zip(np.split(by_length, cuts), np.split(lengths, cuts), strict=True):
        if len(documents) == 0:
            continue
        ids = np.full((len(documents), int(sizes.max())), pad, np.int64)
        for row, document in enumerate(documents):
            start, end = corpus.bounds[document], corpus.bounds[document + 1]
            ids[row, : end - start] = corpus.ids[start:end]
        tensor = torch.from_numpy(ids).to(device, non_blocking=True)
        packed.append(tensor)
        blocks.append(Block(tensor & 0x7FFF, torch.from_numpy(sizes).to(device)))
    return blocks, packed


def learning_rate(step: int, training: Training) -> float:
    """Linear warm-up, then cosine decay to the minimum."""
    if step < training.warmup_steps:
        return training.learning_rate * (step + 1) / training.warmup_steps
    progress = (step - training.warmup_steps) / max(training.steps - training.warmup_steps, 1)
    cosine = 0.5 * (1 + float(np.cos(np.pi * progress)))
    return training.min_learning_rate + (training.learning_rate - training.min_learning_rate) * cosine


def next_token_loss(
    model: NemotronHForCausalLM, hidden: Tensor, packed: list[Tensor], prompt_weight: float
) -> tuple[Tensor, Tensor]:
    """Weighted mean cross-entropy over the blocks, and the unweighted mean over answer tokens."""
    following = torch.cat([F.pad(ids[:, 1:], (0, 1), value=model.config.pad_token_id).flatten() for ids in packed])
    targets, answered = following & 0x7FFF, following >> 15 == 1
    real = targets != model.config.pad_token_id
    logits = model.lm_head(hidden[real]).float()
    losses = F.cross_entropy(logits, targets[real], reduction="none")
    weights = torch.where(answered[real], 1.0, prompt_weight)
    answers = losses.detach()[answered[real]]
    return (losses * weights).sum() / weights.sum(), answers.mean()
