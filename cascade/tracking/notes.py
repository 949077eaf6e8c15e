"""Descriptions of experiments, runs and model versions in MLflow, in Markdown."""

from cascade.recipe import (
    BASE,
    CURATE,
    Distillation,
    GateNode,
    Node,
    OffPolicyNode,
    OnPolicyNode,
    QADNode,
    QuantizeNode,
    Recipe,
    SolveNode,
    TeachersNode,
)

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as a run's or experiment's description."""

UNITS = """\
| metrics | what, and in which unit |
| --- | --- |
| `train/` | the optimizer's steps: log-probabilities, entropies and KL in nats a token, lengths and sizes in tokens |
| `rollout/` | what was sampled: rewards in [0, 1], shares in [0, 1], lengths in tokens, `/<domain>` of one domain; \
`quality` on the judge's scale, where rewards are relative to a group |
| `eval/<domain>/` | the benchmark: `avg_at_k` the mean reward, between `ci_low` and `ci_high`, `pass_at_k` solved |
| `gate/`, `repair/` | the comparison with the best earlier checkpoint: bounds, smallest visible loss, more rollouts |
| `quantize/` | the quantised checkpoint beside the one it was made from: bytes, share of its size, forward KL in nats |
| `solve/` | test-time scaling: true scores in [0, 1]; the step is the budget, in responses for each problem |
| `curate/` | rows, tokens and shares of the data |
| `time/` | seconds (`_share`: of a step) |
| `speed/` | tokens a second |
| `system/` | the machine: percent and megabytes, the step is in seconds since the node began |
"""


FACTS = ("checkpoint", "checkpoint_hash", "recipe", "recipe_hash", "git_revision")


def experiment_note(recipe: Recipe) -> str:
    return (
        f"All runs of recipe family **{recipe.family}**: a run per pipeline run, below it a run per node.\n\n{UNITS}\n"
        "`cascade compare RUN RUN` sets two side by side; `cascade lineage NODE` says what one was made from."
    )


def pipeline_note(recipe: Recipe) -> str:
    """The nodes in their order, each with a sentence."""
    nodes = "\n".join(f"- **{name}**: {_sentence(recipe, name)}" for name in recipe.ordered())
    return f"Recipe **{recipe.name}**, seed {recipe.seed}.\n\n- **{CURATE}**: {_sentence(recipe, CURATE)}\n{nodes}"


def node_note(recipe: Recipe, name: str) -> str:
    return f"{_sentence(recipe, name)}\n\n{UNITS}"


def version_note(name: str, tags: dict[str, str]) -> str:
    """The checkpoint's lineage and scores at the gate."""
    scores = {key.removeprefix("score/"): value for key, value in tags.items() if key.startswith("score/")}
    teachers = {key.removeprefix("teacher/"): value for key, value in tags.items() if key.startswith("teacher/")}
    lines = [f"Checkpoint of node **{tags.get('node', '?')}**, made from {tags.get('parent', '?')}."]
    if scores:
        lines += ["", "| domain | avg@k at the gate | teacher |", "| --- | ---: | --- |"]
        lines += [f"| {domain} | {value} | {teachers.get(domain, '')} |" for domain, value in scores.items()]
    facts = {
        key: tags[key]
        for key in ("checkpoint", "checkpoint_hash", "recipe", "recipe_hash", "git_revision")
        if key in tags
    }
    lines += ["", *(f"- {key.replace('_', ' ')}: `{value}`" for key, value in facts.items())]
    return "\n".join([*lines, "", f"`cascade lineage {name}` says what it was made from."])


def _sentence(recipe: Recipe, name: str) -> str:
    if name == CURATE:
        return f"data of {len(recipe.curation.sources)} sources, filtered, without duplicates, split and packed"
    if name == BASE:
        return f"the base model, {recipe.base}"
    node = recipe.node(name)
    if isinstance(node, TeachersNode):
        return f"chooses the best of {', '.join(node.candidates)} as each domain's teacher"
    if isinstance(node, GateNode):
        return f"lets {node.candidate} pass if it is in no domain significantly below {', '.join(node.against)}"
    if isinstance(node, SolveNode):
        return f"{node.strategy.name} on the benchmark {node.benchmark}, with {', '.join(node.checkpoints)}"
    assert isinstance(node, Node)
    if isinstance(node, OffPolicyNode):
        return f"fine-tuning of {node.init} on its teachers' answers to {node.prompts} prompts"
    if isinstance(node, QuantizeNode):
        return f"{node.init} in {node.format}"
    if isinstance(node, QADNode):
        what = f"quantisation-aware distillation in {node.steps} steps"
        return f"regression check of {node.init} against {node.against[0]}, and where it regressed {what}"
    if not isinstance(node, OnPolicyNode):
        return f"supervised fine-tuning of {node.init}"
    mix = ", ".join(f"{domain} {100 * share:.0f} %" for domain, share in node.mix.items())
    size = f"{node.steps} steps of {node.prompts} prompts × {node.rollouts} rollouts ({mix})"
    if name in recipe.repair:
        return f"regression check of {node.init}, and where it regressed a distillation: {size}"
    if node.steps == 0:
        return f"a merge of the teachers ({mix}), not trained"
    what = "distillation from several teachers" if isinstance(node, Distillation) else "reinforcement learning"
    return f"{what}, from {node.init}: {size}"
