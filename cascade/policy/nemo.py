"""The NeMo Automodel engine: a model split over many GPUs, under torchrun, by FSDP2 and the recipe's `parallel`.

What NeMo does here is to load the model, with its own layers where it has them, and to split it. Steps, scores and
losses are the hf engine's; they differ in that parameters are bfloat16, with float32 copies in the optimizer, and
that gradients and weights exist in parts. Each process holds its parts of weights, gradients and optimizer state.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate
from transformers import AutoConfig, PreTrainedModel

from cascade.errors import CascadeError, CheckpointError
from cascade.policy.base import Objective, Sequence, StepReport
from cascade.policy.batching import MicroBatch
from cascade.policy.checkpoint import check_files, load_checkpoint, load_tokenizer, set_time_step_limit
from cascade.policy.consolidate import save_consolidated
from cascade.policy.hf import HFPolicy, refuse_dropout
from cascade.policy.logits import Transform, token_log_probs
from cascade.policy.master_weights import MasterWeights
from cascade.recipe import Optimizer, Parallel
from cascade.utils import distributed

SCORING_TOKENS = 32768
"""Tokens of a forward pass without gradient, of a policy that is not trained."""


class NemoPolicy(HFPolicy):
    """A checkpoint to score with and, given an optimizer, to train, on the GPUs of all processes together.

    Raises CascadeError without NeMo Automodel or a GPU, or where `parallel` does not fit the number of processes;
    CheckpointError for a directory that is not a checkpoint.
    """

    def __init__(
        self,
        checkpoint_dir: Path,
        optimizer: Optimizer | None = None,
        device: str = "cuda",
        update_router: bool = True,
        parallel: Parallel = Parallel(),  # noqa: B008 (frozen)
    ):
        self._source = Path(checkpoint_dir)
        check_files(self._source)
        _check_processes(parallel)
        self.settings = optimizer
        self.micro_batch_tokens = optimizer.micro_batch_tokens if optimizer else SCORING_TOKENS
        self._parallel = parallel
        self._fast = False
        self._mesh: Any = None
        self._net = self._load()
        self._net.train(_checkpoints_in_training_only(self._net, parallel))
        self.device = torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)
        self.tokenizer = load_tokenizer(self._source, _vocabulary(self._source))
        self._transform = Transform.of(AutoConfig.from_pretrained(self._source, local_files_only=True))
        self._head = self._net.get_output_embeddings()  # type: ignore[operator]
        for module in self._net.modules():
            if isinstance(module, FSDPModule):
                # Losses are parts of the batch's loss, so gradients add up; FSDP would take their mean.
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        for module in self._routers():
            module.requires_grad_(update_router)
            if hasattr(module, "gate_precision"):
                # NeMo's own routers score in bfloat16 unless told: samplers score in float32, and must agree.
                module.gate_precision = module.score_dtype = torch.float32  # type: ignore[assignment]
        self._masters = MasterWeights(self._net, optimizer) if optimizer else None
        self._optimizer = self._masters.adamw if self._masters else None
        self._whole: PreTrainedModel | None = None

    @property
    def sharded(self) -> bool:  # type: ignore[override]
        return distributed.size() > 1

    @property
    def model(self) -> PreTrainedModel:  # type: ignore[override]
        """The current weights as a transformers model, whole, on this process's device: what the torch sampler reads.

        Made when first asked for after a step, by every process at once; for models that fit beside their own parts.
        """
        if self._whole is None:
            scratch = Path(
                distributed.broadcast_from_main(lambda: tempfile.mkdtemp(prefix=".weights.", dir=self._source.parent))
            )
            try:
                self.save(scratch / "model")
                dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
                model, _ = load_checkpoint(scratch / "model", dtype)
                self._whole = model.to(self.device).eval()  # type: ignore[arg-type]
                distributed.barrier()
            finally:
                if distributed.is_main():
                    shutil.rmtree(scratch, ignore_errors=True)
        return self._whole

    def step(self, sequences: list[Sequence], objective: Objective, learning_rate: float) -> StepReport:
        self._whole = None  # Of the weights before the step, and its memory is needed.
        report = super().step(sequences, objective, learning_rate)
        assert self._masters is not None
        self._masters.write_back()
        return report

    def save(self, directory: Path) -> None:
        masters = {n: w.detach() for n, w in self._masters.weights.items()} if self._masters else {}
        save_consolidated(self._net, masters, self.tokenizer, self._source, directory)

    def training_state(self) -> dict[str, Tensor]:
        return self._masters.state() if self._masters else {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        if self._masters is None:
            return
        try:
            self._masters.load(state)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"the training state is of another model or layout ({error})") from None
        self._whole = None

    def _load(self) -> nn.Module:
        """The model, on the GPUs, split. Sets the mesh where there is more than one process."""
        if find_spec("nemo_automodel") is None or not torch.cuda.is_available():
            raise CascadeError(
                "policy engine nemo needs NVIDIA GPUs and NeMo Automodel (`pip install 'cascade-posttrain[nemo]'`); "
                "on one device without it, engine hf does the same"
            )
        from nemo_automodel import NeMoAutoModelForCausalLM
        from nemo_automodel.components.distributed.config import DistributedSetup, FSDP2Config
        from nemo_automodel.components.distributed.mesh import ParallelismSizes

        parallel, setup = self._parallel, None
        if distributed.size() > 1:
            sizes = ParallelismSizes(tp_size=parallel.tensor, cp_size=parallel.context, ep_size=parallel.expert)
            # Layers are given back after their forward pass: the memory plan counts on it.
            strategy = FSDP2Config(activation_checkpointing=parallel.checkpoint_activations, reshard_after_forward=True)
            setup = DistributedSetup.build(
                strategy,
                parallelism_sizes=sizes,
                activation_checkpointing=parallel.checkpoint_activations,
            )
            self._mesh = setup.mesh_context.device_mesh
        net: nn.Module = NeMoAutoModelForCausalLM.from_pretrained(
            str(self._source.resolve()), dtype=torch.bfloat16, distributed_setup=setup, **_overrides(self._source)
        )
        set_time_step_limit(net)  # Where NeMo has no layers of its own, they are transformers'.
        if distributed.size() == 1 and parallel.checkpoint_activations:
            net.gradient_checkpointing_enable()  # type: ignore[operator]
        if parallel.context > 1 and getattr(getattr(net, "backend", None), "attn", None) != "te":
            raise CascadeError("parallel.context: splitting sequences needs Transformer Engine's attention; install it")
        return net

    def _own_batches(self, sequences: list[Sequence]) -> Iterator[tuple[MicroBatch, bool]]:
        """Micro-batches go by data-parallel rank. Every process runs as many as every other: each pass gathers
        weights from all, so one that is out of batches repeats the last, which then counts for nothing."""
        here, parts = self._place, self._parallel.context
        batches = self._split(sequences, here.data_size)
        for start in range(0, len(batches), here.data_size):
            live = start + here.data < len(batches)
            batch = batches[start + here.data] if live else batches[-1]
            if parts > 1:
                # Processes that share a sequence each take a part of its trained tokens.
                own = {name: getattr(batch, name)[here.context :: parts] for name in ("source", "target", "index")}
                batch = replace(batch, **own, tokens=batch.tokens if here.context == 0 else 0)
            yield batch, live

    @property
    def _reports(self) -> bool:  # type: ignore[override]
        return self._place.tensor == 0

    def _take_gradients(self) -> None:
        assert self._masters is not None
        self._masters.take_gradients()

    def _reduce_and_clip(self, limit: float) -> float:
        assert self._masters is not None
        return self._masters.clip(limit)

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        hidden, counts = self._transformers_hidden(batch)
        return *token_log_probs(hidden[batch.source], self._head_weight(), batch.target, self._transform), counts

    def _hidden(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Padding lies on the right, where causal layers do not see it: no mask is needed."""
        batch, context, sharder = {"input_ids": tokens}, nullcontext(), None
        if self._parallel.context > 1:
            from nemo_automodel.components.distributed.context_parallel import ContextParallelSharder

            batch["labels"] = tokens.clone()  # NeMo splits them along; nobody reads them.
            sharder = ContextParallelSharder(self._net, self._mesh, batch)
            make_context, batch = sharder.shard(batch)
            context = make_context()
            batch.pop("labels")
        with context:
            output = self._net(**batch, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        hidden = output.hidden_states if isinstance(output.hidden_states, Tensor) else output.hidden_states[-1]
        return hidden if sharder is None else sharder.gather_token_tensor(hidden, trim=True)

    def _head_weight(self) -> Tensor:
        """The output matrix, whole. Its gradient adds up what the processes found on different tokens."""
        weight = self._head.weight
        if not isinstance(weight, DTensor):
            return weight
        names = weight.device_mesh.mesh_dim_names or ()
        return weight.full_tensor(grad_placements=[Replicate() if name == "tp" else Partial() for name in names])

    @property
    def _place(self) -> "_Place":
        return _place(self._parallel, distributed.rank(), distributed.size())


@dataclass(frozen=True)
class _Place:
    """A process's coordinates: which batches, which part of their sequences, which part of the matrices are its own."""

    data: int
    data_size: int
    context: int
    tensor: int


def _place(parallel: Parallel, rank: int, size: int) -> _Place:
    """As NeMo's device mesh orders them: data, context, tensor, the last running fastest."""
    both = parallel.context * parallel.tensor
    return _Place(rank // both, size // both, rank // parallel.tensor % parallel.context, rank % parallel.tensor)


def _overrides(checkpoint: Path) -> dict[str, float]:
    """NeMo initialises what it then loads, by the logarithm of the least time step; 0, no bound, stops it there.
    What it computes does not depend on it."""
    config = AutoConfig.from_pretrained(checkpoint)
    return {"time_step_min": config.time_step_floor} if getattr(config, "time_step_min", None) == 0 else {}


def _check_processes(parallel: Parallel) -> None:
    size = distributed.size()
    for name, degree in (("tensor × context", parallel.tensor * parallel.context), ("expert", parallel.expert)):
        if size % degree:
            raise CascadeError(f"parallel: {name} is {degree}, which does not divide the {size} processes of the node")


def _checkpoints_in_training_only(net: nn.Module, parallel: Parallel) -> bool:
    """transformers' own layers skip checkpointing in evaluation mode."""
    if not parallel.checkpoint_activations or not isinstance(net, PreTrainedModel):
        return False
    refuse_dropout(net.config)
    return True


def _vocabulary(directory: Path) -> int:
    return AutoConfig.from_pretrained(directory, local_files_only=True).get_text_config().vocab_size
