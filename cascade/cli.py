"""The command line. Every command imports what it needs when it runs, so that `cascade --help` is fast."""

import atexit
import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cascade import __version__
from cascade.errors import CascadeError
from cascade.launch.process_setup import QUIET

if TYPE_CHECKING:
    from cascade.layout import Layout

COMMAND = "cascade.cli:command"
"""The entry point that the fork server calls."""

_PR_SET_NAME = 15


class _OneLineErrors(click.Group):
    """Prints only the message of a CascadeError, and exits with 1."""

    def invoke(self, ctx: click.Context) -> Any:
        from cascade.utils.files import room_for

        try:
            with room_for(Path.cwd()):
                return super().invoke(ctx)
        except CascadeError as error:
            raise click.ClickException(str(error)) from error


def _layout() -> "Layout":
    """The project is the current directory."""
    from cascade.layout import Layout

    return Layout(Path.cwd())


@click.group(cls=_OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Post-train a language model by the Nemotron-Cascade 2 recipe."""
    os.environ.update(QUIET)
    # Without this, the last garbage collection takes seconds at the end of every stage that imported torch or MLflow.
    atexit.register(gc.freeze)


def command(arguments: list[str]) -> None:
    """Run a command line in a process that the fork server started."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_NAME, " ".join(arguments).encode())  # The name that `top` shows.
    main(arguments, prog_name="cascade")


@main.command()
def run() -> None:
    """Build every node of the active recipe that is not up to date."""
    began = time.time()
    from flows.run import run_pipeline

    run_pipeline(_layout(), began)


@main.command()
@click.argument("name")
def node(name: str) -> None:
    """Build one node: `curate`, or a name of the recipe (what a DVC stage calls)."""
    _build_node(name, time.time())


def _build_node(name: str, began: float) -> None:
    from cascade.launch import fork_server

    if fork_server.run_preloaded(COMMAND, ["node", name]):
        return
    from cascade.launch.launcher import launched
    from cascade.stages import run_node

    if not launched("node", name, _layout()):
        run_node(name, _layout(), began)


@main.command()
@click.option("--dry-run", is_flag=True, help="Read a sample of each source, and say what would come of it.")
@click.option("--rows", default=1000, show_default=True, help="Rows of a sample.")
def curate(dry_run: bool, rows: int) -> None:
    """Build data/ from the recipe's sources, as `cascade node curate` does.

    With --dry-run nothing is written: rows kept, tokens, time, disk and memory are estimated.
    """
    if not dry_run:
        from cascade.recipe import CURATE

        _build_node(CURATE, time.time())
        return
    from cascade.stages import estimate_curation

    click.echo("\n".join(estimate_curation(_layout(), rows)))


@main.command()
@click.argument("name")
def evaluate(name: str) -> None:
    """Evaluate a node's checkpoint, or `base`, on every benchmark (what a DVC stage calls)."""
    began = time.time()
    from cascade.launch import fork_server

    if fork_server.run_preloaded(COMMAND, ["evaluate", name]):
        return
    from cascade.launch.launcher import launched
    from cascade.stages import evaluate_node

    if not launched("evaluate", name, _layout()):
        evaluate_node(name, _layout(), began)


@main.command(hidden=True)
@click.argument("name")
def check(name: str) -> None:
    """Decide a regression check (what a launcher of several processes runs before they train)."""
    from cascade.launch.launcher import launched
    from cascade.stages import check_node

    if not launched("check", name, _layout()):
        check_node(name, _layout())


@main.group()
def recipe() -> None:
    """The active recipe, params.yaml."""


@recipe.command("use")
@click.argument("source")
def recipe_use(source: str) -> None:
    """Make SOURCE the active recipe: a name in recipes/ or a file."""
    from cascade.recipe.library import use

    for line in use(source, _layout()):
        click.echo(line)


@recipe.command("show")
@click.argument("source", required=False)
def recipe_show(source: str | None) -> None:
    """The nodes of a recipe in order: what each starts from, its data and its settings."""
    from cascade.recipe.library import find, show

    click.echo("\n".join(show(find(source, _layout()))))


@recipe.command("check")
@click.argument("source", required=False)
def recipe_check(source: str | None) -> None:
    """Say whether a recipe can be run; every problem is one line that names its key."""
    from cascade.recipe import load
    from cascade.recipe.library import find

    path = find(source, _layout())
    loaded = load(path)
    click.echo(f"{path}: {loaded.name}, {len(loaded.ordered())} nodes, no problem found")


@recipe.command("new")
@click.option(
    "--model", type=click.Path(path_type=Path), required=True, help="A directory, as `cascade import` writes."
)
@click.option("--data", multiple=True, required=True, help="FILE of rows (.jsonl, .parquet), or FILE:ENVIRONMENT.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: recipes/ and the model's name.")
@click.option("--gpus", type=click.IntRange(min=0), default=1, show_default=True, help="0: on CPU.")
@click.option("--gpu-gib", default=80.0, show_default=True, help="Memory of each GPU.")
def recipe_new(model: Path, data: tuple[str, ...], out: Path | None, gpus: int, gpu_gib: float) -> None:
    """Write a commented recipe for a model and files of rows, with sizes that fit."""
    from cascade.commands.new_recipe import new_recipe

    for line in new_recipe(model, data, _layout(), out, gpus, gpu_gib):
        click.echo(line)


@recipe.command("export")
@click.argument("system", type=click.Choice(["nemo-rl"]))
@click.argument("source", required=False)
@click.option("--out", type=click.Path(path_type=Path), default=Path("export"), show_default=True)
@click.option("--max-prompt-tokens", default=32768, show_default=True, help="Tokens of the longest prompt.")
def recipe_export(system: str, source: str | None, out: Path, max_prompt_tokens: int) -> None:
    """Write what SYSTEM needs to run the RL and distillation nodes of a recipe: a configuration each, and its prompts.

    The head of each file lists settings that have no counterpart there.
    """
    from cascade.commands.export.nemo_rl import export
    from cascade.recipe import load
    from cascade.recipe.library import find

    for line in export(load(find(source, _layout())), _layout(), out, max_prompt_tokens):
        click.echo(line)


@recipe.command("plan")
@click.argument("source", required=False)
@click.option("--gpus", type=click.IntRange(min=1), help="Each node on so many GPUs, instead of those of `pools`.")
@click.option("--gpu-gib", type=click.FloatRange(min=0, min_open=True), help="Memory of each of them; 79 of 80 GB.")
def recipe_plan(source: str | None, gpus: int | None, gpu_gib: float | None) -> None:
    """GPU memory that each training node needs, in GiB for each GPU; fails where a node does not fit. And what solve
    nodes take at most: responses, tokens, GPU hours.

    With --gpus and --gpu-gib the plan is of these cards; degrees of `parallel` that do not divide their number are
    lowered, which is said.
    """
    from cascade.launch.memory_plan import on_cards, table
    from cascade.recipe import load
    from cascade.recipe.library import find
    from cascade.test_time import plan

    loaded = load(find(source, _layout()))
    if (gpus is None) != (gpu_gib is None):
        raise CascadeError("recipe plan: --gpus and --gpu-gib name cards together; give both or none")
    lowered: list[str] = []
    if gpus is not None and gpu_gib is not None:
        loaded, lowered = on_cards(loaded, gpus, gpu_gib)
    lines, refused = table(loaded, list(loaded.training), _layout())
    click.echo("\n".join([*lines, *lowered, *plan.table(loaded, _layout())]))
    if refused:
        raise CascadeError("\n".join(refused))


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--environment",
    help="The environment that judges, ours or NeMo Gym's (code_gen, …); without it each row names its own.",
)
@click.option("--gym-url", help="A running NeMo Gym resources server, http://host:port, that judges instead.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Where to write each line with its verdict.")
def score(file: Path, environment: str | None, gym_url: str | None, out: Path | None) -> None:
    """Judge the rollouts of a file in NeMo Gym's format again, one verdict for each line.

    Each rollout is judged by itself; where the reward is relative, it is compared with the row's reference. Judge
    models are those of the active recipe.
    """
    from cascade import judges
    from cascade.commands.score import score_file
    from cascade.recipe import load

    def progress(count: int) -> None:
        click.echo(f"{count:,} lines", err=True)

    if _layout().params.exists():
        judges.use(load(_layout().params).judges)
    summary = score_file(file, environment, out, progress, gym_url)
    mean = "none has a reward" if summary.mean_reward is None else f"mean reward {summary.mean_reward:.4f}"
    failures = ", ".join(f"{code} {count}" for code, count in summary.failures.most_common()) or "none"
    click.echo(f"{summary.count:,} lines, {mean}; failures: {failures}")
    if summary.compared:
        click.echo(f"{summary.disagreements:,} of {summary.compared:,} rewards differ from those in the file")


@main.command()
@click.argument("checkpoint")
@click.option("--no-thinking", is_flag=True, help="Answer without reasoning.")
@click.option("--max-new-tokens", default=512, show_default=True)
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
def chat(checkpoint: str, no_thinking: bool, max_new_tokens: int, temperature: float, seed: int) -> None:
    """Chat with CHECKPOINT: a node's name or a directory."""
    from cascade.commands.chat import chat as chat_with

    chat_with(checkpoint, _layout(), not no_thinking, max_new_tokens, temperature, seed)


@main.command()
@click.argument("checkpoint")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--other", "others", multiple=True, help="A further checkpoint that writes answers; may be repeated.")
@click.option("--verifier", help="The checkpoint that verifies and grades; default: CHECKPOINT.")
@click.option(
    "--strategy",
    type=click.Choice(["generate-verify-refine", "generate-select-submit"]),
    help="Default: what the rows need.",
)
@click.option("--candidates", type=click.IntRange(min=1), help="Answers of the first round; programs a round.")
@click.option("--rounds", type=click.IntRange(min=1))
@click.option("--verifications", type=click.IntRange(min=1), help="Of each answer.")
@click.option("--keep", type=click.IntRange(min=1), help="Answers that a round refines.")
@click.option("--refinements", type=click.IntRange(min=1), help="Of each of them.")
@click.option("--generations", type=click.IntRange(min=1), help="Budget of responses for each problem.")
@click.option("--tokens", type=click.IntRange(min=1), help="Budget of tokens for each problem.")
@click.option("--submissions", type=click.IntRange(min=1), help="Budget of submissions for each problem.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Budget of time for the whole file.")
@click.option("--server", "servers", multiple=True, help="Address of a vLLM server, http://host:port; may be repeated.")
@click.option("--max-new-tokens", default=512, show_default=True)
@click.option("--temperature", default=1.0, show_default=True)
@click.option("--top-p", default=1.0, show_default=True)
@click.option("--no-thinking", is_flag=True, help="Answer without reasoning.")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Directory of the trail.")
def solve(
    checkpoint: str,
    file: Path,
    others: tuple[str, ...],
    verifier: str | None,
    strategy: str | None,
    generations: int | None,
    tokens: int | None,
    submissions: int | None,
    seconds: float | None,
    servers: tuple[str, ...],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    no_thinking: bool,
    seed: int,
    out: Path | None,
    **settings: int | None,
) -> None:
    """Solve the problems of FILE with CHECKPOINT (a node's name or a directory), spending many responses on each.

    FILE has rows in NeMo Gym's form (.jsonl, .json), or is one problem in words. Answers are printed with how they were
    found. Killed and run again, the command goes on.
    """
    from cascade.commands.solve import solve_file
    from cascade.recipe.sections import Budget, Rollout

    rollout = Rollout(
        engine="vllm" if servers else "torch",
        servers=list(servers),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        thinking=not no_thinking,
    )
    budget = Budget(generations=generations, tokens=tokens, submissions=submissions, seconds=seconds)
    given = {key: value for key, value in settings.items() if value is not None}
    for line in solve_file(
        [checkpoint, *others], verifier, file, strategy, given, budget, rollout, seed, out, _layout()
    ):
        click.echo(line)


@main.command()
def report() -> None:
    """Write report/index.html: tables and figures of the active recipe's results."""
    from cascade.recipe import load
    from cascade.report.page import build_report

    layout = _layout()
    click.echo(build_report(load(layout.params), layout))


@main.command()
@click.argument("first")
@click.argument("second")
@click.option("--chart", type=click.Path(path_type=Path), help="Also write a chart: a .png or .svg.")
def compare(first: str, second: str, chart: Path | None) -> None:
    """Two runs side by side: scores by domain with paired differences, settings, data, costs.

    A run is an MLflow run's id or name, a pipeline run's id, NODE (of this project) or PIPELINE/NODE.
    """
    from cascade.commands.compare import as_text
    from cascade.commands.compare import compare as compare_runs

    comparison = compare_runs(first, second, _layout())
    click.echo("\n".join(as_text(comparison)))
    if chart is not None:
        from cascade.commands.compare.chart import draw

        click.echo(f"chart: {draw(comparison, chart)}")


@main.command()
@click.argument("what")
@click.option("--forward", is_flag=True, help="From data to every checkpoint and registered model that it touched.")
def lineage(what: str, forward: bool) -> None:
    """Where a model comes from: every checkpoint, teacher, recipe and file of data behind it, with their hashes.

    WHAT is a registered model (NAME or NAME/VERSION), a node or run, or a metric (NODE:METRIC). With --forward it is
    data: the name of a source or dataset, a path under data/, or the beginning of a hash.
    """
    from cascade.commands.lineage import backward
    from cascade.commands.lineage import forward as onward

    click.echo("\n".join((onward if forward else backward)(what, _layout())))


@main.command()
@click.argument("start")
@click.option("--steps", type=click.IntRange(min=1), help="Steps of each run; default: the recipe's own.")
def interference(start: str, steps: int | None) -> None:
    """Measure how RL on each single domain, from node START, changes every other, and which order of stages follows."""
    from cascade.commands.interference import measure

    matrix = measure(start, _layout(), steps)
    from cascade.commands.interference.page import in_words, write

    page = write(matrix)
    click.echo("\n".join([*in_words(matrix), str(page)]))


@main.command()
@click.argument("model")
@click.option("--to", required=True, help="A new directory, or hf://organisation/name.")
@click.option("--base-model", help="The base model's name on the Hub, for the card; default: what its own card says.")
def publish(model: str, to: str, base_model: str | None) -> None:
    """Publish MODEL, a node whose checkpoint a gate has passed, with its model card and data card."""
    from cascade.commands.publish.publish import publish_model
    from cascade.recipe import load

    click.echo(publish_model(load(_layout().params), _layout(), model, to, base_model))


@main.command()
@click.option("--prefect-port", default=4200, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
def ui(prefect_port: int, mlflow_port: int) -> None:
    """Serve the pages of Prefect and MLflow on this machine until Ctrl-C."""
    from cascade.launch.ui_servers import serve

    serve(_layout(), prefect_port, mlflow_port)


@main.command()
def doctor() -> None:
    """Check the installation: engines, devices, versions, servers; what is missing and how to get it."""
    from cascade.commands.doctor import examine

    sys.exit(0 if examine(_layout()) else 1)


@main.command("import")
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), default=Path("models/base"), show_default=True)
@click.option("--chat-template", help="hermes, nemotron or qwen3, or a Jinja file, in place of the model's own.")
@click.option("--add-tokens", is_flag=True, help="Make single tokens of <think> and <tool_call> and their ends.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="Of the weights; default: the source's own.")
def import_(source: str, out: Path, chat_template: str | None, add_tokens: bool, dtype: str | None) -> None:
    """Make a base model of SOURCE: a name on the Hub, a directory or a .gguf file.

    Prints what was changed, and what the model can be trained for.
    """
    from cascade.commands.import_model.importer import import_model

    for line in import_model(source, out, chat_template, add_tokens, dtype):
        click.echo(line)


@main.command()
@click.argument("source", type=click.Path(path_type=Path), default=Path("recipes/base/nano.yaml"))
@click.option("--out", type=click.Path(path_type=Path), default=Path("models/base"), show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--processes", default=2, show_default=True, help="Processes that generate text.")
def pretrain(source: Path, out: Path, device: str, processes: int) -> None:
    """Make a base model from generated text, as SOURCE says (default: recipes/base/nano.yaml), and its card."""
    from cascade.pretraining.card import write_card
    from cascade.pretraining.pretrain import pretrain as make

    make(source, out, device=device, processes=processes)
    write_card(source, out)
