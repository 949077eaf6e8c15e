"""The recipe's sections: their keys, defaults and meaning."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cascade.recipe.names import Alias, Name
from cascade.utils.config import Count, Section, Share, check_sums_to_one

EVEN = "even"
"""Value of a node's `mix`, see `OnPolicyNode.mix`."""

TeacherMemory = Literal["device", "host", "disk"]


class Optimizer(Section):
    learning_rate: Annotated[float, Field(gt=0)]
    min_learning_rate: Annotated[float, Field(ge=0)] | None = None
    """Learning rate at the last step of a cosine; by default it would reach 0 one step later."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    warmup_from: Annotated[float, Field(ge=0)] | None = None
    """Learning rate at the first step of a linear warm-up; by default it would have been 0 one step earlier."""
    schedule: Literal["constant", "cosine"] = "constant"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    gradient_clip: Annotated[float, Field(gt=0)] = 1.0
    micro_batch_tokens: Count = 8192
    """Tokens of one forward and backward pass; changes memory and speed, not results beyond rounding."""

    @property
    def first_rate(self) -> float:
        """Of the warm-up."""
        return self.learning_rate / (self.warmup_steps + 1) if self.warmup_from is None else self.warmup_from


PLACEMENT = {"servers", "weights", "memory"}
"""Keys of a rollout that say where it is sampled; results do not depend on them."""


class Rollout(Section):
    engine: Literal["torch", "vllm"] = "torch"
    servers: list[Annotated[str, Field(pattern=r"^https?://[^/]+$")]] = Field(default=[])
    """Engine vllm: addresses of vLLM servers, each with the whole model; requests are distributed over them
    (docs/vllm.md). Without any, the engine is colocated with the trainer, on the same device."""
    weights: str | None = None
    """Engine vllm: directory that trainer and engine share, through which weights are transferred, one for each node;
    a temporary one by default."""
    memory: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """Engine vllm without servers: share of the device's memory that it uses while it samples."""
    max_new_tokens: Count
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Share = 1.0
    thinking: bool = True
    max_turns: Count = 200
    """Episodes: the largest number of responses."""
    max_context: Count = 262144
    """Episodes: tokens in all. A further turn begins only where `max_new_tokens` of it still fit."""
    max_log_prob_gap: Annotated[float, Field(gt=0)] = 0.1
    """Mean |trainer − sampler| log-probability difference, in nats, above which the node stops."""

    @model_validator(mode="after")
    def _placement(self) -> "Rollout":
        defaults = {name: Rollout.model_fields[name].default for name in sorted(PLACEMENT)}
        placement_keys = [name for name, value in defaults.items() if getattr(self, name) != value]
        if self.engine != "vllm" and placement_keys:
            raise ValueError(f"{placement_keys[0]}: for engine vllm only; take it out or say engine: vllm")
        if self.servers and "memory" in placement_keys:
            raise ValueError("memory: is for an engine beside the trainer, servers have their own; take it out")
        return self


class Parallel(Section):
    """How engine `nemo` lays a model out over the GPUs of a node. Weights, gradients and optimizer state are always
    split over all of them; batches go to those that these degrees leave over. Engine `hf` knows
    `checkpoint_activations` alone."""

    expert: Count = 1
    """GPUs over which the experts of a layer are distributed."""
    tensor: Count = 1
    """GPUs over which the matrices of a layer are split; for dense models."""
    context: Count = 1
    """GPUs over which each sequence is split; needs Transformer Engine."""
    checkpoint_activations: bool = False
    """Keep only each layer's input and recompute the rest in the backward pass: less memory, a third more compute."""
    keep_gathered: bool | None = None
    """Gather each layer's weights once a step instead of twice a micro-batch, and add its gradients up once: fewer
    messages, for 6 bytes of each GPU a parameter that is not of an expert. By default where experts are dealt out over
    all GPUs, as they then are most parameters."""

    def keeps_gathered(self, gpus: int) -> bool:
        return gpus > 1 and (self.expert == gpus if self.keep_gathered is None else self.keep_gathered)

    @model_validator(mode="after")
    def _fit_together(self) -> "Parallel":
        if self.tensor > 1 and self.expert > 1:
            raise ValueError("tensor: experts are dealt out instead of split; leave one of tensor and expert at 1")
        return self


class Lora(Section):
    """Low-rank adapters, of engine hf: only these are trained, and every checkpoint has them merged into its weights
    (docs/algorithms.md)."""

    rank: Count = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapters' product is multiplied by alpha / rank."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Ends of the names of the layers that have one, such as q_proj; `all-linear`: every linear layer but the output
    matrix (of Mamba layers without out_proj). Experts that transformers keeps as one tensor are none."""


class Node(Section):
    init: str
    """The node, or `base`, whose checkpoint this node starts from."""
    round: Count
    """A distillation or repair opens a new round. A teachers or gate node reads every evaluation of its round."""
    engine: Literal["hf", "nemo"] = "hf"
    parallel: Parallel = Parallel()
    checkpoint_every: Count = 20
    """Steps between saves of the resumable state."""
    checkpoint_dtype: Literal["init", "float32"] = "init"
    """Type in which the checkpoint's weights are stored: those of the checkpoint that the node starts from, as engine
    nemo always does, or float32, in which engine hf trains."""
    lora: Lora | None = None
    """Train low-rank adapters instead of all weights."""

    @model_validator(mode="after")
    def _parallel_engine(self) -> "Node":
        whole = self.parallel.model_copy(update={"checkpoint_activations": False}) == Parallel()
        if self.engine != "nemo" and not whole:
            raise ValueError(
                f"parallel: engine {self.engine} keeps the whole model on each GPU; take it out or say nemo"
            )
        if self.engine == "nemo" and self.lora is not None:
            raise ValueError("lora: of engine hf alone; take it out or say hf")
        if self.engine == "nemo" and self.checkpoint_dtype != "init":
            raise ValueError("checkpoint_dtype: engine nemo stores weights in the types of init; take it out or say hf")
        return self


class SFTNode(Node):
    """Supervised fine-tuning on the packed sequences of data/sft."""

    epochs: Annotated[float, Field(gt=0)]
    batch: Count
    """Packed sequences a step."""
    optimizer: Optimizer
    update_router: bool = True


class OnPolicyNode(Node):
    """What RL and distillation share: prompts, rollouts, one optimizer step per batch of fresh rollouts."""

    mix: dict[str, Share]
    """Domain → share of the prompts of each step. `even`: equal shares of the domains with RL prompts and a
    benchmark."""
    steps: Count
    prompts: Count
    rollouts: Count
    rollout: Rollout
    optimizer: Optimizer
    max_failure_rate: Share = 0.1
    """Share of rollouts without a verdict above which the node stops."""
    update_router: bool = False
    gradient_shares: bool = False
    """Measure each domain's share of the squared gradient norm, every step: micro-batches are then of one domain. One
    process of engine hf only."""

    @model_validator(mode="after")
    def _mix(self) -> "OnPolicyNode":
        check_sums_to_one("mix", self.mix)
        if self.gradient_shares and self.engine != "hf":
            raise ValueError("gradient_shares: of engine hf only; take it out")
        return self


class RLNode(OnPolicyNode):
    """GRPO, strictly on-policy (recipe, common settings)."""

    rollouts: Annotated[int, Field(gt=1)]
    """Rollouts of a group; its mean is the baseline, so at least two."""
    kl: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL term to the node's initial policy."""
    dynamic_filtering: bool = True
    """Drop zero-variance groups and draw other prompts in their place."""
    max_refills: Annotated[int, Field(ge=0)] = 2
    """Further rounds of sampling to fill the batch; after them the step runs with the groups that it has."""
    min_best_reward: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Drop a group whose best reward does not exceed this, as a zero-variance group is dropped; 0 disables this."""
    difficulty: Annotated[int, Field(ge=0)] = 0
    """Prompts of each domain and level that are sampled before the first step, `rollouts` each: what share of them can
    teach is said, and levels of which fewer than `min_teaching` do are left out. 0: none, all levels are drawn."""
    min_teaching: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the prompts that must teach, their rollouts' rewards differ: over ten steps (or all, where there are
    fewer) the node stops below it, with advice; and where no step trained anything. 0: only then."""
    overlong: Literal["zero", "mask", "keep"] = "zero"
    """An unfinished response: reward 0, masked from the loss, or judged as it is."""


class HeldOut(Section):
    """Prompts of each domain that are set aside from training, on which recovery is measured while a node trains."""

    every: Count
    """Steps between measurements; the first is before the first step."""
    prompts: Count = 32
    """Of each domain: the last of its RL prompts."""
    rollouts: Count = 1


class Distillation(OnPolicyNode):
    """MOPD: the teacher's log-ratio on the sampled token as advantage."""

    importance: tuple[float, float] = (0.5, 2.0)
    """Range of π_train/π_inf outside which a token is dropped."""
    held_out: HeldOut | None = None
    teacher_memory: TeacherMemory = "device"
    """Where the teachers are kept: all on the device, or in host memory or on disk, from where they are loaded one at a
    time, the next one while another scores."""

    @model_validator(mode="after")
    def _teachers_fit_the_engine(self) -> "Distillation":
        if self.engine == "nemo" and self.teacher_memory == "disk":
            raise ValueError("teacher_memory: disk is of engine hf; nemo's teachers wait on device or host")
        return self


class TaughtNode(Node):
    """A distillation whose teachers are chosen by a node of their own."""

    teachers: str
    """The teachers node that chose them."""
    start: Literal["init", "merge"] = "init"
    """Initial weights: those of `init`, or a merge of the teachers: their common start plus their task vectors, each
    times `merge_scale` (arXiv 2212.04089). The common start is the last node from which all teachers descend; it may be
    a teacher itself, and then has no task vector."""
    merge_scale: Annotated[float, Field(gt=0)] | None = None
    """By default 1/K for K task vectors: the mean (IM-MOPD, arXiv 2609.34745)."""

    @model_validator(mode="after")
    def _merges(self) -> "TaughtNode":
        if self.engine == "nemo" and self.start == "merge":
            raise ValueError("start: weights are merged by engine hf only")
        if self.lora is not None and self.start == "merge":
            raise ValueError("lora: adapters train on the weights of init; take it out, or start: merge")
        if self.merge_scale is not None and self.start != "merge":
            raise ValueError("merge_scale: is for start: merge; say so, or take it out")
        return self


class DistillNode(Distillation, TaughtNode):
    steps: Annotated[int, Field(ge=0)]
    """0, with `start: merge`: nothing is trained, the checkpoint is the merge."""

    @model_validator(mode="after")
    def _does_something(self) -> "DistillNode":
        if self.steps == 0 and self.start != "merge":
            raise ValueError("steps: 0 leaves the weights of init as they are; give a number, or say start: merge")
        return self


class OffPolicyNode(TaughtNode):
    """Off-policy distillation: SFT on the teachers' answers, sampled once, that their verifiers accept (sequence-level
    knowledge distillation, arXiv 1606.07947). A control for on-policy distillation, or its warm-up."""

    mix: dict[str, Share]
    """Domain → share of the prompts; as of an on-policy node."""
    prompts: Count
    rollouts: Count
    """Answers sampled to each prompt."""
    rollout: Rollout
    min_reward: Share = 1.0
    """Smallest reward of an answer that is trained on."""
    epochs: Annotated[float, Field(gt=0)]
    batch: Count
    """Answers a step."""
    optimizer: Optimizer
    update_router: bool = False

    @model_validator(mode="after")
    def _mix(self) -> "OffPolicyNode":
        check_sums_to_one("mix", self.mix)
        return self


class Comparison(Section):
    """When a checkpoint counts as worse than the best earlier one in a domain (docs/algorithms.md)."""

    against: Annotated[list[str], Field(min_length=1)]
    """Earlier training nodes; in each domain the checkpoint is compared with the best of them. Default: all of the
    rounds that are read."""
    margin: Annotated[float, Field(gt=0, le=1)] = 0.05
    """The loss, in reward, that is to be excluded: a domain has held where a loss of this or more is."""
    significance: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Chance of finding a regression, in any domain of this comparison, where none has lost anything."""
    miss_rate: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Chance of finding, in a domain that has lost the margin, that it has held."""
    minimum_effect: Annotated[float, Field(ge=0)] = 0.02
    """A measured loss smaller than this, in reward, is no regression even where it is significant."""
    budget: Annotated[float, Field(ge=0)] = 6.0
    """Largest number of further rollouts of the checkpoint, and as many of the earlier ones, for domains that are
    undecided: as a multiple of those of one evaluation. 0: what the evaluations have must do."""


class RegressionCheck(Comparison):
    """A node that checks its `init` for regressions."""

    reads_round: Count
    """The round whose evaluations it waits for and reads: the one before its own, which DVC cannot compute."""


class RepairNode(Distillation, RegressionCheck):
    """Regression check of `init`: where it regressed in a domain, distillation from the best earlier checkpoint there
    and from `init` itself in all other domains; where it did not, the checkpoint of `init`, unchanged."""

    focus: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the prompts that are of the regressed domains, each by its part of `mix`; the rest keeps the others at
    their level. 0: all domains by `mix`."""


class Quantization(Section):
    format: Literal["fp8", "nvfp4", "int8", "int4", "int2"]
    """Of the weights (docs/quantization.md); of fp8 engines round activations too."""
    keep: tuple[str, ...] = ("lm_head",)
    """Linear layers and experts that are not quantised: names or ends of names, with * for anything, such as in_proj or
    layers.0.*. Embeddings, routers, convolutions, norms and all else that is no matrix product stay in any case."""


class QuantizeNode(Node, Quantization):
    """Post-training quantisation of `init`: a directory of quantised weights and their scales, which is loaded again
    and compared with the fake-quantised model before it counts."""

    rows: Count = 16
    """Packed sequences of data/sft for that comparison, and for the distance from `init`."""
    max_log_prob_gap: Annotated[float, Field(gt=0)] = 1e-3
    """Mean log-probability difference, in nats, between what was written and the fake-quantised model above which the
    node stops."""

    @model_validator(mode="after")
    def _whole_model(self) -> "QuantizeNode":
        _check_quantizes(self)
        return self


class QADNode(Node, RegressionCheck):
    """Regression check of a quantised `init` against the checkpoint that it was quantised from; where it regressed,
    quantisation-aware distillation (arXiv 2601.20088): forward KL to that checkpoint on data/sft, computed with
    quantised weights. Where it did not, the checkpoint of `init`, unchanged."""

    steps: Count
    batch: Count
    """Packed sequences a step."""
    optimizer: Optimizer
    update_router: bool = False

    @model_validator(mode="after")
    def _whole_model(self) -> "QADNode":
        _check_quantizes(self)
        return self


def _check_quantizes(node: Node) -> None:
    if node.engine != "hf":
        raise ValueError(f"engine: {node.engine} does not quantise; say hf")
    if node.lora is not None:
        raise ValueError("lora: all weights are quantised and trained; take it out")


class TeachersNode(Section):
    """Choice of the best checkpoint per domain, from the history of evaluations."""

    round: Count
    """The round whose evaluations it waits for and reads, with those of the rounds before."""
    candidates: Annotated[list[str], Field(min_length=1)]
    domains: dict[str, list[str]] = Field(default={})
    """Domain → its allowed candidates; other domains allow all."""
    earlier_runs: bool = False
    """Checkpoints of the same nodes in earlier pipeline runs of this recipe family are candidates too, where MLflow has
    their evaluation on the same benchmarks, and DVC's cache their files."""


class Evaluation(Section):
    rollouts: Count
    """Rollouts of each benchmark prompt."""
    rollout: Rollout


class GateNode(Comparison):
    round: Count
    """The round whose evaluations it waits for and reads, with those of the rounds before."""
    candidate: str
    registered_name: Name
    alias: Alias = "champion"
    """Of what is quantised, by default champion- and its format."""


class GenerateVerifyRefine(Section):
    """Generate–verify–refine: answers, each verified by a model; the best ones refined by what verifiers say. Defaults:
    the paper's, for problems of the IMO."""

    name: Literal["generate-verify-refine"]
    candidates: Count = 128
    """Answers of the first round, by each checkpoint that writes."""
    verifications: Count = 64
    """Of each answer, each with a score of 0, 0.5 or 1; dealt out over the verifiers."""
    keep: Count = 32
    """Answers, the best of all so far, that a round refines."""
    critiques: Count = 8
    """Verifications that a refinement is told, the lowest scores first."""
    critiques_per_score: Count | None = None
    """Of these at most so many of each score."""
    refinements: Count = 4
    """Of each answer that is kept, by each checkpoint that writes."""
    rounds: Count = 8
    accept: Share = 0.99999
    """Mean score from which the search ends."""
    grades: Count = 64
    """Final grades of the answer, asked anew; one zero makes it zero. Not part of the budget."""


class GenerateSelectSubmit(Section):
    """Generate–select–submit: programs for each subtask that is not solved, run on samples and generated inputs; of the
    largest groups that behave alike one is submitted. Defaults: the paper's, for problems of the IOI; what it has no
    number for is said."""

    name: Literal["generate-select-submit"]
    rounds: Count = 50
    candidates: Count = 40
    """Programs a round for each subtask that is not solved, by each checkpoint."""
    inputs: Annotated[int, Field(ge=0)] = 8
    """Generated inputs of each subtask; not in the paper."""
    submissions: Count = 1
    """The most a round for each subtask; not in the paper."""
    accepted_shown: Annotated[int, Field(ge=0)] = 2
    """Accepted programs of other subtasks that the prompt shows; not in the paper."""
    rejected_shown: Annotated[int, Field(ge=0)] = 2
    """Own submissions that failed, with their verdicts, that the prompt shows; not in the paper."""


STRATEGIES: dict[str, type[Section]] = {
    "generate-verify-refine": GenerateVerifyRefine,
    "generate-select-submit": GenerateSelectSubmit,
}
"""By the `name` that a solve node gives."""


class Budget(Section):
    """Hard limits; without one, the strategy's rounds end the search. Responses of every kind count, except final
    grades."""

    generations: Count | None = None
    """Responses for each problem."""
    tokens: Count | None = None
    """Sampled tokens for each problem. A response is asked for only while `max_new_tokens` are left."""
    submissions: Count | None = None
    """Submissions for each problem."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """Of the whole node, over all its processes."""


class SolveNode(Section):
    """Test-time scaling: a strategy on a benchmark's problems, compared with plain sampling at the same budget."""

    init: str
    """The node, or `base`, whose checkpoint writes answers, and verifies them where `verifiers` names no other."""
    others: list[str] = Field(default=[])
    """Further checkpoints that write. They are upstream of `init`, so that DVC, which compares that one, sees every
    change of theirs."""
    verifiers: list[str] = Field(default=[])
    """Checkpoints that verify and grade: `init` or upstream of it."""
    benchmark: str
    """The domain whose benchmark has the problems."""
    problems: Count | None = None
    """Only the first so many of them."""
    strategy: Annotated[GenerateVerifyRefine | GenerateSelectSubmit, Field(discriminator="name")]
    budget: Budget = Budget()
    rollout: Rollout
    plain: bool = True
    """Also sample answers from scratch at the same budget, for the comparison in the report: as much again."""

    @property
    def writers(self) -> list[str]:
        return [self.init, *self.others]

    @property
    def checkpoints(self) -> list[str]:
        """All of them, each once; their order is the numbers that strategies know them by."""
        return list(dict.fromkeys([*self.writers, *self.verifiers]))
