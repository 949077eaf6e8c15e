"""Post-training quantisation of a checkpoint, and quantisation-aware distillation from it (arXiv 2601.20088)."""

import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from cascade.layout import Layout
from cascade.policy.base import Objective, Sequence
from cascade.policy.hf import HFPolicy
from cascade.recipe import QuantizeNode, Recipe
from cascade.recipe.library import checkpoint_of
from cascade.training.lr_schedule import learning_rate
from cascade.training.metrics import Metrics, step_metrics
from cascade.training.node_run import NodeRun
from cascade.training.sft import PackedSequences, sft_files
from cascade.training.shuffle import ShuffledEpochs
from cascade.utils.files import hash_directory
from cascade.utils.progress import Progress, say


def run_quantize(recipe: Recipe, name: str, layout: Layout) -> None:
    """Quantise the checkpoint of `init` and publish what was written: only where it loads, and its log-probabilities
    are those of the fake-quantised model. Raises CheckpointError where they are not."""
    node = recipe.quantize[name]
    run = NodeRun(recipe, name, layout, sft_files(layout), {})
    run.set_up_torch()
    began = time.perf_counter()
    policy = fake_quantized_policy(run, run.parent, node)
    run.open_journal(0)
    rows = probe(recipe, node, name, layout, run.work)

    def measure(written: Path) -> None:
        parent = HFPolicy(run.parent, device=str(policy.device))
        found = beside(name, node, written, policy, run.parent, parent, rows)
        tokens, seconds = float(sum(len(row.token_ids) for row in rows)), time.perf_counter() - began
        run.journal.metrics({**found, "train/tokens": tokens, "time/step_seconds": seconds}, 0)

    run.finish(policy, rows, node.max_log_prob_gap, measure)


def run_qad(
    recipe: Recipe, name: str, layout: Layout, after_step: Callable[[int, HFPolicy, Metrics], None] | None = None
) -> None:
    """Distil from the checkpoint that `init` was quantised from into its quantised weights, and publish them:
    forward KL at temperature 1, the mean over the trained tokens of data/sft. It starts from that checkpoint's
    weights, which are what is trained (`FakeQuantized`). `after_step` is called after every step."""
    node = recipe.qad[name]
    quantized = recipe.quantize[node.init]
    whole = checkpoint_of(recipe, layout, quantized.init)
    files = sft_files(layout)
    run = NodeRun(recipe, name, layout, files, {"quantized from": hash_directory(whole)})
    run.set_up_torch()
    policy = fake_quantized_policy(run, whole, quantized)
    teacher = HFPolicy(whole, device=str(policy.device))
    step = run.resume(policy).step
    data = PackedSequences(files, run.work / "sequences.arrow")
    order = ShuffledEpochs(len(data), recipe.seed, name, "sequences")
    progress = Progress(name, node.steps, step)
    while step < node.steps:
        began = time.perf_counter()
        batch = [data[order[position]] for position in range(step * node.batch, (step + 1) * node.batch)]
        rate = learning_rate(node.optimizer, step, node.steps)
        report = policy.distill(batch, teacher, mean(sum(sum(s.trained) for s in batch)), rate)
        seconds = time.perf_counter() - began
        metrics = {**step_metrics(report, rate, seconds), "time/step_seconds": seconds}
        run.journal.metrics(metrics, step)
        progress.step(step, {"KL": f"{report.loss:.4f}", "tokens/s": f"{report.tokens / seconds:,.0f}"})
        step += 1
        if after_step is not None:
            after_step(step, policy, metrics)
        if step % node.checkpoint_every == 0 or step == node.steps:
            run.save(policy, step, {})
    rows = probe(recipe, quantized, node.init, layout, run.work)  # Those on which `init` was measured.

    def measure(written: Path) -> None:
        run.journal.metrics(beside(name, quantized, written, policy, whole, teacher, rows), step - 1)

    run.finish(policy, rows, quantized.max_log_prob_gap, measure)


def beside(
    name: str,
    node: QuantizeNode,
    written: Path,
    policy: HFPolicy,
    whole: Path,
    reference: HFPolicy,
    rows: list[Sequence],
) -> Metrics:
    """What was written of `policy`, beside `whole`, which it was quantised from (loaded: `reference`): bytes, share of
    its size, and the mean forward KL to it over the trained tokens of `rows`, in nats."""
    ours, theirs = (sum(f.stat().st_size for f in path.glob("*.safetensors")) for path in (written, whole))
    divergence = policy.forward_kl(rows, reference).mean().item()
    say(f"{name}: {node.format}, {100 * ours / theirs:.0f} % of the size, KL to {node.init} {divergence:.4f} nats")
    return {"quantize/forward_kl": divergence, "quantize/bytes": float(ours), "quantize/size_share": ours / theirs}


def fake_quantized_policy(run: NodeRun, checkpoint: Path, node: QuantizeNode) -> HFPolicy:
    policy = run.load_policy(checkpoint, node)
    assert isinstance(policy, HFPolicy)
    return policy


def mean(trained: int) -> Objective:
    """1/N of the sum of a value of each of the N trained tokens of the step."""

    def objective(values: Tensor, index: Tensor) -> Tensor:
        return values.sum() / trained

    return objective


def probe(recipe: Recipe, node: QuantizeNode, name: str, layout: Layout, work: Path) -> list[Sequence]:
    """The packed sequences on which the written checkpoint is compared."""
    data = PackedSequences(sft_files(layout), work / "sequences.arrow")
    order = ShuffledEpochs(len(data), recipe.seed, name, "probe")
    return [data[order[position]] for position in range(min(node.rows, len(data)))]
