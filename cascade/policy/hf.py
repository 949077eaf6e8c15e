"""The Hugging Face engine: any causal LM that fits on one device. NemotronH and Llama-type decoders use the engine's
own forward passes, which compute the common prefix of rollouts once.

Several processes distribute a batch by micro-batches and sum their gradients: the same step as with one process.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig

from cascade.errors import CascadeError, CheckpointError
from cascade.policy import forward
from cascade.policy.base import Objective, Scores, Sequence, StepReport
from cascade.policy.batching import MicroBatch, MicroBatches, micro_batches, trained_count
from cascade.policy.blocks import Block
from cascade.policy.checkpoint import load_checkpoint, save_checkpoint, stored_types
from cascade.policy.gradient_buckets import GradientBuckets
from cascade.policy.gradient_parts import GradientParts
from cascade.policy.logits import Transform, token_forward_kl, token_log_probs
from cascade.policy.lora import Adapters
from cascade.policy.optimizer import make_optimizer
from cascade.policy.quantization.fake import ROUTERS, FakeQuantized
from cascade.policy.quantization.store import is_quantized
from cascade.recipe import Lora, Optimizer, Quantization
from cascade.utils import distributed
from cascade.utils.files import link_directory


class HFPolicy:
    """Computes scores with a checkpoint's model and, given an optimizer, trains it. On CUDA it uses bfloat16 autocast.

    With `lora` it trains adapters, drawn from `seed`, that are always merged into the model's weights; with
    `quantization` full weights, which the model's own are quantised from after each step. A checkpoint that is
    quantised itself only scores.

    Raises CheckpointError for a directory that is not a checkpoint. Dropout is off: the policy that is trained
    is the policy that samples.
    """

    sharded = False
    _recompute = False
    _adapters: Adapters | None = None
    _quantized: FakeQuantized | None = None
    _quantized_files: Path | None = None
    _reports = True
    """Whether this process's results are used; if several processes compute the same tokens, only one's are."""

    def __init__(
        self,
        checkpoint_dir: Path,
        optimizer: Optimizer | None = None,
        device: str = "cpu",
        update_router: bool = True,
        micro_batch_tokens: int = 8192,
        checkpoint_activations: bool = False,
        checkpoint_dtype: str = "init",
        lora: Lora | None = None,
        seed: int = 0,
        quantization: Quantization | None = None,
    ):
        self.device = torch.device(device)
        model, self.tokenizer = load_checkpoint(checkpoint_dir)
        self._quantized_files = Path(checkpoint_dir) if is_quantized(Path(checkpoint_dir)) else None
        if self._quantized_files and (optimizer or quantization):
            raise CheckpointError(f"{checkpoint_dir}: quantised; train from what it was quantised from")
        self._types = stored_types(Path(checkpoint_dir)) if checkpoint_dtype == "init" else None
        self._fast = forward.supports(model)
        if model.config.model_type != "nemotron_h":
            _check_logits(model.eval(), self._fast, checkpoint_dir)
        self.model = self._net = model.to(self.device).eval()  # type: ignore[arg-type]
        self.settings = optimizer
        self.micro_batch_tokens = optimizer.micro_batch_tokens if optimizer else micro_batch_tokens
        self._head = self.model.get_output_embeddings()
        self._transform = Transform.of(self.model.config)
        self._recompute = checkpoint_activations
        if checkpoint_activations and not self._fast:
            refuse_dropout(self.model.config)
            self.model.gradient_checkpointing_enable()
        for module in self._routers():
            module.requires_grad_(update_router)
        self._adapters = Adapters(self.model, lora, seed) if lora and optimizer else None
        self._quantized = FakeQuantized(self.model, quantization) if quantization else None
        if self._quantized and distributed.size() > 1:
            raise CascadeError("quantised weights are trained in one process only; take the node out of `pools`")
        self._optimizer = make_optimizer(self._trainable(), optimizer) if optimizer else None
        self._buckets = GradientBuckets(self._trainable()) if optimizer and distributed.size() > 1 else None

    @property
    def config(self) -> PreTrainedConfig:
        return self.model.config

    @property
    def generation_config(self) -> GenerationConfig | None:
        return self.model.generation_config

    def score(self, sequences: list[Sequence]) -> Scores:
        found = []
        with torch.no_grad():
            for batch, live, _ in self._own_batches(sequences):
                log_probs, entropy, _ = self._forward(batch)
                distributed.alive()
                if live and self._reports:
                    found.append((batch.index, log_probs, entropy))
        return _collected(trained_count(sequences), found)

    def forward_kl(self, sequences: list[Sequence], teacher: "HFPolicy") -> Tensor:
        """KL(π_teacher ‖ π) at each trained token [N], in nats, on the CPU; the teacher is of the same architecture."""
        values = torch.zeros(trained_count(sequences))
        with torch.no_grad():
            for batch, live, _ in self._own_batches(sequences):
                if live:
                    values[batch.index.cpu()] = self._forward_kl(batch, teacher)[0].float().cpu()
        distributed.all_reduce_sum(values)
        return values

    def step(
        self, sequences: list[Sequence], objective: Objective, learning_rate: float, parts: list[int] | None = None
    ) -> StepReport:
        """Raises CascadeError for a policy without optimizer, an empty batch, or a gradient that is not finite."""
        return self._step(sequences, objective, learning_rate, parts, self._forward)

    def distill(
        self, sequences: list[Sequence], teacher: "HFPolicy", objective: Objective, learning_rate: float
    ) -> StepReport:
        """A step on KL(π_teacher ‖ π) at each trained token: in the objective and in the report, it stands for the
        token's log-probability. Raises CascadeError as `step`."""
        return self._step(sequences, objective, learning_rate, None, partial(self._forward_kl, teacher=teacher))

    def _step(
        self,
        sequences: list[Sequence],
        objective: Objective,
        learning_rate: float,
        parts: list[int] | None,
        forward_pass: Callable[[MicroBatch], tuple[Tensor, Tensor, list[Tensor]]],
    ) -> StepReport:
        if self._optimizer is None or self.settings is None:
            raise CascadeError("this policy was loaded without an optimizer and cannot be trained")
        total = trained_count(sequences)
        if total == 0:
            raise CascadeError("a training step got no trained token; skip the step")
        tokens = 0
        counts: list[Tensor] = []
        losses: list[Tensor] = []
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        self._optimizer.zero_grad(set_to_none=True)
        by_part = GradientParts(self._trainable()) if parts is not None else None
        if by_part is not None and (self.sharded or distributed.size() > 1):
            raise CascadeError("gradients of parts of a batch are measured in one process only; leave them out")
        if self._recompute and not self._fast:
            self.model.train()
        own = self._own_batches(sequences) if parts is None else self._batches_by_part(sequences, parts)
        for batch, live, last in own:
            log_probs, entropy, routed = forward_pass(batch)
            self._before_backward(last)
            part = objective(log_probs, batch.index) if live else 0 * log_probs.sum()
            part.backward()  # type: ignore[no-untyped-call]
            self._take_gradients()
            if by_part is not None:
                by_part.add(batch.part)
            distributed.alive()
            if live and self._reports:
                # Read at the end: reading synchronises, and the device would then wait for the next micro-batch.
                losses.append(part.detach())
                found.append((batch.index, log_probs.detach(), entropy))
                tokens += batch.tokens
                counts = [a + b for a, b in zip(counts, routed, strict=True)] if counts else routed
        if self._recompute and not self._fast:
            self.model.eval()
        if by_part is not None:
            by_part.finish()
        norm = self._reduce_and_clip(self.settings.gradient_clip)
        if not math.isfinite(norm):
            raise CascadeError(f"the gradient norm is {norm}; lower the learning rate or look at the batch")
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        if self._adapters is not None:
            self._adapters.merge()
        if self._quantized is not None:
            self._quantized.refresh()
        loss = sum(map(float, losses))
        reports = distributed.gather((loss, tokens, torch.stack(counts).cpu() if counts else None))
        routed_to = [routed for *_, routed in reports if routed is not None]
        load = sum(routed_to[1:], routed_to[0]) if routed_to else None
        shares = None if load is None else (load / load.sum(1, keepdim=True)).float()
        return StepReport(
            sum(p[0] for p in reports),
            norm,
            _collected(total, found),
            shares,
            sum(p[1] for p in reports),
            by_part.products if by_part is not None else {},
        )

    def save(self, directory: Path) -> None:
        if self._quantized_files is not None:
            link_directory(self._quantized_files, directory)
        else:
            save_checkpoint(self.model, self.tokenizer, directory, self._types, self._quantized)

    def to_host(self) -> None:
        """Move to the host's memory, until `to_device`."""
        self.model.to("cpu")  # type: ignore[arg-type]

    def to_device(self) -> None:
        self.model.to(self.device)  # type: ignore[arg-type]

    def training_state(self) -> dict[str, Tensor]:
        if self._adapters is not None:  # All other weights are the parent checkpoint's.
            state = {f"lora.{name}": value for name, value in self._adapters.state().items()}
        else:
            full = self._quantized.weights if self._quantized else {}
            weights = {**self.model.state_dict(), **full}
            state = {f"model.{name}": value.detach().to("cpu", copy=True) for name, value in weights.items()}
        if self._optimizer is not None:
            for name, parameter in self._named().items():
                for key, value in self._optimizer.state.get(parameter, {}).items():
                    state[f"optimizer.{key}.{name}"] = value.detach().to("cpu", copy=True)
        return state

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        """Raises CheckpointError if the state is of a different model."""
        prefix = "model." if self._adapters is None else "lora."
        weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        try:
            if self._adapters is None:
                self.model.load_state_dict(weights)
                if self._quantized is not None:
                    self._quantized.load(weights)
            else:
                self._adapters.load(weights)
        except RuntimeError as error:
            raise CheckpointError(
                f"the training state is of another model ({str(error).splitlines()[-1].strip()})"
            ) from None
        if self._optimizer is None:
            return
        parameters = self._named()
        self._optimizer.state.clear()
        for name, value in state.items():
            if name.startswith("optimizer."):
                key, parameter = name.removeprefix("optimizer.").split(".", 1)
                device = "cpu" if key == "step" and self.device.type == "cpu" else self.device
                self._optimizer.state[parameters[parameter]][key] = value.to(device, copy=True)

    def _own_batches(self, sequences: list[Sequence]) -> Iterator[tuple[MicroBatch, bool, bool]]:
        """This process's micro-batches, whether each counts in the loss, and whether it is the last."""
        batches = self._split(sequences, distributed.size())
        own = range(distributed.rank(), len(batches), distributed.size())
        for number in own:
            yield batches[number], True, number == own[-1]

    def _batches_by_part(self, sequences: list[Sequence], parts: list[int]) -> Iterator[tuple[MicroBatch, bool, bool]]:
        """Micro-batches of one part each, part after part; their tokens are numbered over the whole batch."""
        tokens = [sum(sequence.trained) for sequence in sequences]
        owner = torch.repeat_interleave(torch.tensor(parts), torch.tensor(tokens))
        for part in sorted(set(parts)):
            position = (owner == part).nonzero().flatten().to(self.device)
            members = [sequence for sequence, of in zip(sequences, parts, strict=True) if of == part]
            batches = self._split(members, 1)
            for number in range(len(batches)):
                batch = batches[number]
                yield replace(batch, index=position[batch.index], part=part), True, part == max(parts)

    def _split(self, sequences: list[Sequence], parts: int) -> MicroBatches:
        return micro_batches(sequences, self.micro_batch_tokens, self._fast, self.device, parts)

    def _before_backward(self, last: bool) -> None:
        """Called before each backward pass of a step. `last`: whether it is this process's last."""
        if last and self._buckets is not None:
            self._buckets.last_pass()

    def _take_gradients(self) -> None:
        """Called after each micro-batch's backward pass. Here gradients stay in the parameters."""

    def _reduce_and_clip(self, limit: float) -> float:
        """Sum gradients over processes and clip their norm to `limit`; returns the norm before clipping."""
        if self._buckets is not None:
            self._buckets.finish()
        return float(nn.utils.clip_grad_norm_(self._trainable(), limit))

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Log-probabilities [n] and entropies [n] of the trained tokens, tokens per expert and layer."""
        with self._autocast():
            chosen, counts = self._chosen(batch)
            return *token_log_probs(chosen, self._head.weight, batch.target, self._transform), counts

    def _forward_kl(self, batch: MicroBatch, teacher: "HFPolicy") -> tuple[Tensor, Tensor, list[Tensor]]:
        """The same with KL(π_teacher ‖ π) [n] in place of log-probabilities."""
        with self._autocast():
            with torch.no_grad():
                theirs, _ = teacher._chosen(batch)
            chosen, counts = self._chosen(batch)
            return (
                *token_forward_kl(
                    chosen, self._head.weight, theirs, teacher._head.weight, self._transform, teacher._transform
                ),
                counts,
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _chosen(self, batch: MicroBatch) -> tuple[Tensor, list[Tensor]]:
        """Final hidden states [n, D] at the trained tokens' predictions, tokens per expert and layer."""
        if self._fast:
            found = forward.hidden_states(self.model, batch.blocks, recompute=self._recompute)
            return found.hidden[batch.source], found.expert_counts
        hidden, counts = self._transformers_hidden(batch)
        return hidden[batch.source], counts

    def _transformers_hidden(self, batch: MicroBatch) -> tuple[Tensor, list[Tensor]]:
        """The same through transformers' own forward pass, one padded block."""
        (block,) = batch.blocks
        rows, length = block.tokens.shape
        mask = None
        if block.lengths is not None:
            mask = torch.arange(length, device=self.device) < block.lengths.unsqueeze(1)
        counts: list[Tensor] = []

        def count(router: Any, _: Any, output: tuple[Tensor, ...]) -> None:
            chosen = next(t for t in output if not t.is_floating_point()).view(rows * length, -1)
            if mask is not None:
                chosen = chosen[mask.flatten()]
            counts.append(torch.bincount(chosen.flatten(), minlength=router.weight.shape[0]))

        hooks = [router.register_forward_hook(count) for router in self._routers()]
        try:
            hidden = self._hidden(block.tokens, mask)
        finally:
            for hook in hooks:
                hook.remove()
        return hidden.flatten(0, 1), counts

    def _hidden(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Final hidden states [R, L, D] of tokens [R, L]; mask [R, L]: which are not padding, None: all."""
        output = self.model.base_model(
            input_ids=tokens, attention_mask=None if mask is None else mask.long(), use_cache=False
        )
        return output.last_hidden_state

    def _named(self) -> dict[str, nn.Parameter]:
        """What the optimizer may have state of, by name."""
        if self._adapters is not None:
            return self._adapters.parameters
        full = self._quantized.weights if self._quantized else {}
        return {**dict(self.model.named_parameters()), **full}

    def _trainable(self) -> list[nn.Parameter]:
        return [p for p in self._named().values() if p.requires_grad]

    def _routers(self) -> list[nn.Module]:
        return [module for module in self._net.modules() if type(module).__name__.endswith(ROUTERS)]


def _check_logits(model: Any, fast: bool, directory: Path) -> None:
    """Log-probabilities are computed from hidden states, by the engine's own forward pass if there is one, and the
    output matrix. Check in float32 on the CPU that these reproduce the model's logits."""
    tokens = torch.arange(8).unsqueeze(0)
    with torch.no_grad():
        logits = model(input_ids=tokens, use_cache=False).logits
        if fast:
            hidden = forward.hidden_states(model, [Block(tokens)]).hidden.unsqueeze(0)
        else:
            hidden = model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        head, transform = model.get_output_embeddings(), Transform.of(model.config)
        found = head(hidden) * transform.scale
        if transform.cap is not None:
            found = transform.cap * (found / transform.cap).tanh()
        if head.bias is not None or not torch.allclose(found, logits, rtol=1e-3, atol=1e-4):
            raise CheckpointError(
                f"{directory}: its logits are more than hidden states times the output matrix, scaled or capped"
            )


def refuse_dropout(config: Any) -> None:
    """Raises CascadeError for a model with dropout. transformers' own layers use activation checkpointing in training
    mode only, which computes the same as evaluation mode only without dropout."""
    dropout = {key: value for key, value in config.to_dict().items() if "dropout" in key and value}
    if dropout:
        key, value = next(iter(dropout.items()))
        raise CascadeError(
            f"config.json: {key} {value}: the policy that is trained must be the one that samples; set 0"
        )


def _collected(count: int, parts: list[tuple[Tensor, Tensor, Tensor]]) -> Scores:
    """The scores of `count` trained tokens from those of all processes' micro-batches (index, log-probabilities,
    entropies)."""
    scores = Scores(torch.zeros(count), torch.zeros(count))
    for index, log_probs, entropy in parts:
        index = index.cpu()
        scores.log_probs[index] = log_probs.float().cpu()
        scores.entropy[index] = entropy.float().cpu()
    distributed.all_reduce_sum(scores.log_probs, scores.entropy)
    return scores
