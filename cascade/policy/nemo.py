"""The NeMo Automodel engine: a model sharded over many GPUs, under torchrun, by FSDP2 and the recipe's `parallel`.

NeMo loads the model, with its own layers if it has them, and shards it. Steps, scores and losses are the hf engine's,
except that parameters are bfloat16, with float32 master weights in the optimizer, and that each process has only its
shards of weights, gradients and optimizer state.
"""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Partial, Replicate
from transformers import AutoConfig, GenerationConfig, PreTrainedConfig, PreTrainedModel

from cascade.errors import CascadeError, CheckpointError
from cascade.policy.attention import deterministic_in_modules
from cascade.policy.base import Objective, Scores, Sequence, StepReport
from cascade.policy.batching import MicroBatch
from cascade.policy.checkpoint import check_files, load_checkpoint, load_tokenizer, set_time_step_limit
from cascade.policy.consolidate import copy_whole, save_consolidated, stored_narrower
from cascade.policy.expert_parallel import replace_experts
from cascade.policy.hf import HFPolicy, refuse_dropout
from cascade.policy.logits import Transform, token_log_probs
from cascade.policy.master_weights import MasterWeights, local
from cascade.recipe import Optimizer, Parallel
from cascade.utils import distributed

SCORING_TOKENS = 32768
"""Tokens per forward pass without gradient, for a policy that is not trained."""


class NemoPolicy(HFPolicy):
    """Computes scores with a checkpoint's model and, given an optimizer, trains it, on the GPUs of all processes.

    Raises CascadeError without NeMo Automodel or a GPU, or if `parallel` does not fit the number of processes;
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
        self._keeps_gathered = optimizer is not None and parallel.keeps_gathered(distributed.size())
        self._fast = False
        self._buckets = None
        self._together: list[int] = []
        self._mesh: Any = None
        self._net = self._load()
        self._net.train(_checkpoints_in_training_only(self._net, parallel))
        self.device = torch.device(device, torch.cuda.current_device()) if device == "cuda" else torch.device(device)
        self.tokenizer = load_tokenizer(self._source, _vocabulary(self._source))
        self._config = AutoConfig.from_pretrained(self._source, local_files_only=True)
        self._transform = Transform.of(self._config)
        # The sharded parameter, which the optimizer has; while its layer is gathered, the module holds another one.
        self._output = self._net.get_output_embeddings().weight  # type: ignore[operator]
        self._units = [module for module in self._net.modules() if isinstance(module, FSDPModule)]
        for unit in self._units:
            # Losses are parts of the batch's loss, so gradients are summed; FSDP's default is the mean.
            unit.set_gradient_divide_factor(1.0)
            unit.set_force_sum_reduction_for_comms(True)
        if not self._keeps_gathered:
            _prefetch(self._net)
        if parallel.context == 1:
            replace_experts(self._net, lambda: self._together)
        for module in self._routers():
            module.requires_grad_(update_router)
            if hasattr(module, "gate_precision"):
                # NeMo's own routers score in bfloat16 by default; samplers score in float32, and both must agree.
                module.gate_precision = module.score_dtype = torch.float32  # type: ignore[assignment]
        stored = stored_narrower(self._net, self._source) if optimizer else {}
        self._masters = MasterWeights(self._net, optimizer, stored) if optimizer else None
        self._optimizer = self._masters.optimizer if self._masters else None
        self._whole: PreTrainedModel | None = None
        self._changed = False
        self._hosted: list[tuple[torch.UntypedStorage, Tensor]] | None = None
        self._written: dict[str, Tensor] = {}

    @property
    def sharded(self) -> bool:  # type: ignore[override]
        return distributed.size() > 1

    @property
    def model(self) -> PreTrainedModel:  # type: ignore[override]
        """The current weights as an unsharded transformers model on this process's device, for the torch sampler.

        Always the same object; on the first access after a step, which all processes must make, its weights are
        overwritten in place. For models that fit on one device in addition to their shards.
        """
        distributed.main_thread_only("the whole model of engine nemo")
        if self._whole is None:
            dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
            model, _ = load_checkpoint(self._source, dtype)
            self._whole = model.to(self.device).eval()  # type: ignore[arg-type]
        if self._changed:
            copy_whole(self._net, self._whole)
            self._changed = False
        return self._whole

    @property
    def config(self) -> PreTrainedConfig:
        return self._config

    @property
    def generation_config(self) -> GenerationConfig:
        if (self._source / "generation_config.json").exists():
            return GenerationConfig.from_pretrained(self._source)
        return GenerationConfig.from_model_config(self._config)

    def score(self, sequences: list[Sequence]) -> Scores:
        distributed.main_thread_only("scoring with engine nemo")
        scores = super().score(sequences)
        self._reshard()
        return scores

    def step(
        self, sequences: list[Sequence], objective: Objective, learning_rate: float, parts: list[int] | None = None
    ) -> StepReport:
        distributed.main_thread_only("a step of engine nemo")
        with deterministic_in_modules():
            report = super().step(sequences, objective, learning_rate, parts)
        self._reshard()
        assert self._masters is not None
        self._masters.write_back()
        self._changed = True
        return report

    def save(self, directory: Path) -> None:
        distributed.main_thread_only("saving with engine nemo")
        masters = {n: w.detach() for n, w in self._masters.weights.items()} if self._masters else {}
        save_consolidated(self._net, masters, self.tokenizer, self._source, directory, self._written)

    def to_host(self) -> None:
        """For a policy that is not trained. Moves only this process's shards, so no other process is needed."""
        if self._hosted is None:
            pinned = self.device.type == "cuda"
            self._hosted = []
            for storage in _storages(self._net):
                host = torch.empty(len(storage), dtype=torch.uint8, pin_memory=pinned)
                self._hosted.append((storage, host.copy_(_bytes(storage, self.device))))
        for storage, _ in self._hosted:
            storage.resize_(0)

    def to_device(self) -> None:
        for storage, host in self._hosted or ():
            if len(storage) == 0:
                storage.resize_(len(host))
                _bytes(storage, self.device).copy_(host)

    def training_state(self) -> dict[str, Tensor]:
        return self._masters.state() if self._masters else {}

    def load_training_state(self, state: dict[str, Tensor]) -> None:
        if self._masters is None:
            return
        try:
            self._masters.load(state)
        except (KeyError, RuntimeError) as error:
            raise CheckpointError(f"the training state is of another model or layout ({error})") from None
        self._changed = True

    def _load(self) -> nn.Module:
        """The model, sharded on the GPUs. Sets the mesh if there is more than one process."""
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
            # Layers are resharded after their forward pass by default: the memory plan assumes it.
            strategy = FSDP2Config(
                activation_checkpointing=parallel.checkpoint_activations,
                reshard_after_forward=not self._keeps_gathered,
            )
            setup = DistributedSetup.build(
                strategy,
                parallelism_sizes=sizes,
                activation_checkpointing=parallel.checkpoint_activations,
            )
            self._mesh = setup.mesh_context.device_mesh
        net: nn.Module = NeMoAutoModelForCausalLM.from_pretrained(
            str(self._source.resolve()), dtype=torch.bfloat16, distributed_setup=setup, **_overrides(self._source)
        )
        set_time_step_limit(net)  # If NeMo has no layers of its own for the model, they are transformers'.
        if distributed.size() == 1 and parallel.checkpoint_activations:
            net.gradient_checkpointing_enable()  # type: ignore[operator]
        if parallel.context > 1 and getattr(getattr(net, "backend", None), "attn", None) != "te":
            raise CascadeError("parallel.context: splitting sequences needs Transformer Engine's attention; install it")
        return net

    def _own_batches(self, sequences: list[Sequence]) -> Iterator[tuple[MicroBatch, bool, bool]]:
        """Micro-batches are distributed by data-parallel rank. Every pass gathers weights from all processes, so all
        run equally many: a process without further batches repeats its last one, which is not counted."""
        here, parts = self._place, self._parallel.context
        batches = self._split(sequences, here.data_size)
        places = [_place(self._parallel, rank, distributed.size()) for rank in range(distributed.size())]
        for start in range(0, len(batches), here.data_size):
            live = start + here.data < len(batches)
            together = [min(start + place.data, len(batches) - 1) for place in places]
            tokens = tuple(batches.block_tokens(number) for number in together)
            batch = replace(batches[together[distributed.rank()]], together=tokens)
            if parts > 1:
                # Each of the processes that share a sequence takes a part of its trained tokens.
                own = {name: getattr(batch, name)[here.context :: parts] for name in ("source", "target", "index")}
                batch = replace(batch, **own, tokens=batch.tokens if here.context == 0 else 0)
            yield batch, live, start + here.data_size >= len(batches)

    @property
    def _reports(self) -> bool:  # type: ignore[override]
        return self._place.tensor == 0

    def _before_backward(self, last: bool) -> None:
        """If layers stay gathered during a step, gradients are reduced over the processes in its last pass."""
        if self._keeps_gathered:
            for module in self._units:
                module.set_is_last_backward(last)
                module.set_reshard_after_backward(last, recurse=False)
                module.set_requires_gradient_sync(last, recurse=False)

    def _reshard(self) -> None:
        """Discard gathered weights, which are outdated after a step."""
        if self._keeps_gathered:
            for module in self._units:
                module.reshard()

    def _take_gradients(self) -> None:
        assert self._masters is not None
        self._masters.take_gradients()

    def _reduce_and_clip(self, limit: float) -> float:
        assert self._masters is not None
        return self._masters.clip(limit)

    def _forward(self, batch: MicroBatch) -> tuple[Tensor, Tensor, list[Tensor]]:
        self._together = list(batch.together)
        hidden, counts = self._transformers_hidden(batch)
        return *token_log_probs(hidden[batch.source], self._head_weight(), batch.target, self._transform), counts

    def _hidden(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Padding is on the right, which causal layers do not see: no mask is needed."""
        batch, context, sharder = {"input_ids": tokens}, nullcontext(), None
        if self._parallel.context > 1:
            from nemo_automodel.components.distributed.context_parallel import ContextParallelSharder

            batch["labels"] = tokens.clone()  # NeMo requires and splits them; they are not used.
            sharder = ContextParallelSharder(self._net, self._mesh, batch)
            make_context, batch = sharder.shard(batch)
            context = make_context()
            batch.pop("labels")
        with context:
            output = self._net(**batch, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        hidden = output.hidden_states if isinstance(output.hidden_states, Tensor) else output.hidden_states[-1]
        return hidden if sharder is None else sharder.gather_token_tensor(hidden, trim=True)

    def _head_weight(self) -> Tensor:
        """The unsharded output matrix. Its gradient is the sum over processes, which compute different tokens."""
        weight = self._output
        if not isinstance(weight, DTensor):
            return weight
        names = weight.device_mesh.mesh_dim_names or ("",) * weight.device_mesh.ndim
        return weight.full_tensor(grad_placements=[Replicate() if name == "tp" else Partial() for name in names])

    @property
    def _place(self) -> "_Place":
        return _place(self._parallel, distributed.rank(), distributed.size())


@dataclass(frozen=True)
class _Place:
    """A process's coordinates: in data parallelism, context parallelism and tensor parallelism."""

    data: int
    data_size: int
    context: int
    tensor: int


def _place(parallel: Parallel, rank: int, size: int) -> _Place:
    """In the order of NeMo's device mesh: data, context, tensor, with the last varying fastest."""
    both = parallel.context * parallel.tensor
    return _Place(rank // both, size // both, rank // parallel.tensor % parallel.context, rank % parallel.tensor)


def _overrides(checkpoint: Path) -> dict[str, float]:
    """NeMo initialises weights before it loads them, with the logarithm of the smallest time step, and fails at 0,
    which means no bound. The value does not affect computation."""
    config = AutoConfig.from_pretrained(checkpoint)
    return {"time_step_min": config.time_step_floor} if getattr(config, "time_step_min", None) == 0 else {}


def _prefetch(net: nn.Module) -> None:
    """Make each layer prefetch the next layer's weights: with slow kernel launches a gather on demand comes late."""
    layers: list[list[FSDPModule]] = []
    for name, module in net.named_modules():
        if isinstance(module, FSDPModule) and _LAYER.search(name):
            inner: Iterator[Any] = module.modules()  # type: ignore[attr-defined]
            layers.append([unit for unit in inner if isinstance(unit, FSDPModule)])
    for layer, following in pairwise(layers):
        layer[0].set_modules_to_forward_prefetch(following)


_LAYER = re.compile(r"(?:^|\.)layers\.\d+$")


def _storages(net: nn.Module) -> list[torch.UntypedStorage]:
    """The storages of this process's shards of the parameters."""
    storages = {(s := local(p.data).untyped_storage()).data_ptr(): s for p in net.parameters()}
    return list(storages.values())


def _bytes(storage: torch.UntypedStorage, device: torch.device) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=device).set_(storage)  # type: ignore[call-overload]


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
