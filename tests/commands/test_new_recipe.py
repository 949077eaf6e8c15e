"""`cascade recipe new`: tiny models and a few rows; what it writes is a recipe that passes the check and fits."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cascade import environments
from cascade.cli import main
from cascade.commands import new_recipe
from cascade.commands.import_model.importer import import_model, template
from cascade.errors import CascadeError
from cascade.launch import memory_plan
from cascade.layout import Layout
from cascade.recipe import Recipe, load
from tests.commands.test_import import made

QUESTION = {"question": "What is 2 + 3?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    list(import_model(str(made(folder / "source")), folder / "tiny-1M", chat_template="qwen3"))
    return folder / "tiny-1M"


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def generated(path: Path, name: str, count: int, level: int = 1) -> str:
    return written(path, list(environments.get(name).generate(count, 0, level)))


def new(model: Path, data: list[str], root: Path, gpus: int = 1, gib: float = 80.0) -> tuple[Recipe, list[str]]:
    out = root / "recipes" / "made.yaml"
    lines = list(new_recipe.new_recipe(model, data, Layout(root), out, gpus, gib))
    return load(out), lines


def test_one_domain_with_demonstrations(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "gsm8k.jsonl", [QUESTION] * 40)
    recipe, lines = new(model, [data], tmp_path)
    assert lines[0] == "gsm8k.jsonl: 40 rows of math, 100% can be verified, 100% have a demonstration"
    source = recipe.curation.sources["gsm8k"]
    assert (source.path, source.environment, source.sft, source.rl, source.benchmark) == (
        "gsm8k.jsonl",
        "math",
        -1,
        -1,
        4,
    )
    assert list(recipe.training) == ["sft", "math_rl"]
    assert lines[-1] == "written to recipes/made.yaml: sft, math_rl, release"
    assert (recipe.rl["math_rl"].init, recipe.rl["math_rl"].rollout.thinking) == ("sft", True)
    assert recipe.gate["release"].against == ["sft"]
    assert recipe.curation.max_tokens == recipe.curation.sequence_length == 256
    assert recipe.sft["sft"].batch == 1  # 40 rows are few tokens: many small steps
    assert recipe.place("math_rl").gpu_gib == 80


def test_several_domains_branch_from_sft_and_are_distilled(model: Path, tmp_path: Path) -> None:
    data = [
        written(tmp_path / "gsm8k.jsonl", [QUESTION] * 40),
        generated(tmp_path / "Choices 2.jsonl", "mcqa", 30),
        written(
            tmp_path / "talk.jsonl",
            [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}],
        ),
    ]
    recipe, lines = new(model, data, tmp_path)
    assert {name: node.init for name, node in recipe.training.items()} == {
        "sft": "base", "math_rl": "sft", "mcqa_rl": "sft", "mopd": "sft"
    }  # fmt: skip
    assert recipe.distill["mopd"].mix == {"math": 0.5, "mcqa": 0.5}
    talk = recipe.curation.sources["talk"]
    assert (talk.domain, talk.sft, talk.rl, talk.benchmark) == ("chat", -1, 0, 0)
    assert recipe.curation.sources["choices_2"].domain == "mcqa"
    assert lines[-1].endswith("made.yaml: sft, math_rl, mcqa_rl, select_teachers, mopd, release")


def test_many_tokens_make_large_batches(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_recipe, "READ", 10)
    recipe, _ = new(model, [written(tmp_path / "a.jsonl", [QUESTION] * 8000)], tmp_path)
    rows = recipe.sft["sft"].batch * recipe.curation.sequence_length
    assert recipe.curation.sequence_length == 2048
    # Ten rows tell how long 8,000 are: about 140 letters each with the template, a token a letter.
    assert 100 * 8000 / new_recipe.STEPS / 2 < rows <= 200 * 8000 / new_recipe.STEPS


def test_without_demonstrations_all_start_from_the_base(model: Path, tmp_path: Path) -> None:
    bare = [
        {k: v for k, v in row.items() if k != "demonstration"} for row in environments.get("mcqa").generate(20, 0, 1)
    ]
    math = [
        {"environment": "math", "expected_answer": "5", "responses_create_params": {"input": f"What is {n} + {5 - n}?"}}
        for n in range(20)
    ]
    recipe, _ = new(model, [written(tmp_path / "a.jsonl", bare), written(tmp_path / "b.jsonl", math)], tmp_path)
    assert {name: node.init for name, node in recipe.training.items()} == {
        "mcqa_rl": "base", "math_rl": "base", "mopd": "base"
    }  # fmt: skip
    assert recipe.evaluation.rollout.max_new_tokens == 512


def test_what_the_template_loses_is_said_and_thinking_stays_off(tmp_path: Path) -> None:
    source = made(tmp_path / "source", chat_template=template("hermes"))
    list(import_model(str(source), tmp_path / "m"))
    recipe, lines = new(tmp_path / "m", [written(tmp_path / "a.jsonl", [QUESTION] * 10)], tmp_path)
    lost = "100% of its demonstrations have reasoning, which the template loses"
    remedy = "curation rejects them: import the model again, with --chat-template qwen3 or nemotron"
    assert f"  {lost}; {remedy}" in lines
    assert recipe.rl["math_rl"].rollout.thinking is False


def test_the_largest_micro_batches_that_fit_are_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def table(recipe: Recipe, names: list[str], layout: Layout) -> tuple[list[str], list[str]]:
        node = recipe.rl["math_rl"]
        asked.append((node.engine, node.optimizer.micro_batch_tokens, node.parallel.checkpoint_activations))
        return [], [] if asked[-1] == ("hf", 8192, True) else ["math_rl: needs more"]

    monkeypatch.setattr(memory_plan, "table", table)
    data = written(tmp_path / "a.jsonl", [QUESTION] * 10)
    recipe, lines = new(model, [data], tmp_path)
    assert asked[:2] == [("hf", 65536, False), ("hf", 32768, False)]
    assert len(asked) == 10
    assert recipe.sft["sft"].parallel.checkpoint_activations
    assert "micro-batches of 8,192 tokens, activations computed again" in lines[-2]
    assert recipe.sft["sft"].lora is None
    monkeypatch.setattr(memory_plan, "table", lambda *a: ([], ["math_rl: needs 99 GiB of each GPU"]))
    (tmp_path / "recipes" / "made.yaml").unlink()
    with pytest.raises(CascadeError, match="no setting fits 1 GPUs of 80 GiB: math_rl: needs 99 GiB"):
        new(model, [data], tmp_path)
    assert not (tmp_path / "recipes" / "made.yaml").exists()


@pytest.mark.parametrize("gpus", [1, 2])
def test_adapters_are_trained_where_all_weights_do_not_fit(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int
) -> None:
    def table(recipe: Recipe, names: list[str], layout: Layout) -> tuple[list[str], list[str]]:
        return [], [] if recipe.rl["math_rl"].lora else ["math_rl: needs more"]

    data = written(tmp_path / "a.jsonl", [QUESTION] * 10)
    whole, _ = new(model, [data], tmp_path)
    (tmp_path / "recipes" / "made.yaml").unlink()
    monkeypatch.setattr(memory_plan, "table", table)
    recipe, lines = new(model, [data], tmp_path, gpus=gpus)
    assert "engine hf, micro-batches of 65,536 tokens, activations computed again, adapters alone" in lines[-2]
    for name, node in recipe.training.items():
        assert node.engine == "hf"
        assert node.lora is not None
        assert node.optimizer.learning_rate == pytest.approx(10 * whole.training[name].optimizer.learning_rate)


def test_several_gpus_and_none(model: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "a.jsonl", [QUESTION] * 10)
    recipe, _ = new(model, [data], tmp_path, gpus=2, gib=24)
    place = recipe.place("math_rl")
    assert (place.launcher, place.gpus, place.gpu_gib) == ("torchrun", 2, 24)
    (tmp_path / "recipes" / "made.yaml").unlink()
    recipe, lines = new(model, [data], tmp_path, gpus=0)
    assert recipe.pools == {}
    assert "no GPU: sizes are for CPU, for tiny models" in lines


def test_an_environment_is_named_for_rows_that_name_none(model: Path, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "environment"} for row in environments.get("mcqa").generate(10, 0, 1)]
    data = written(tmp_path / "a.jsonl", rows)
    with pytest.raises(CascadeError, match=r"no row of it can be used \(no_environment.*FILE:ENVIRONMENT"):
        new(model, [data], tmp_path)
    recipe, _ = new(model, [f"{data}:mcqa"], tmp_path)
    assert recipe.curation.sources["a"].environment == "mcqa"
    with pytest.raises(CascadeError, match="unknown environment 'mcq'"):
        new(model, [f"{data}:mcq"], tmp_path)


def test_errors(model: Path, tmp_path: Path) -> None:
    talk = written(
        tmp_path / "t.jsonl", [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    )
    with pytest.raises(CascadeError, match=r"no such file of rows"):
        new(model, ["nothing.jsonl"], tmp_path)
    with pytest.raises(CascadeError, match="nothing to evaluate or to reward"):
        new(model, [talk], tmp_path)
    with pytest.raises(CascadeError, match="no such checkpoint directory"):
        new(tmp_path / "none", [talk], tmp_path)
    with pytest.raises(CascadeError, match="it is empty"):
        new(model, [written(tmp_path / "e.jsonl", [])], tmp_path)


def test_by_the_command_line(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "rows.jsonl", [QUESTION] * 20)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tiny-1M").symlink_to(model)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    arguments = ["recipe", "new", "--model", "models/tiny-1M", "--data", "rows.jsonl"]
    result = runner.invoke(main, arguments)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "recipes" / "tiny-1m.yaml").read_text()
    assert "base: models/tiny-1M\n" in text
    assert text.startswith("# Written by `cascade recipe new`")
    for command in ("check", "plan", "use"):
        found = runner.invoke(main, ["recipe", command, "tiny-1m"])
        assert found.exit_code == 0, found.output
    assert runner.invoke(main, arguments).output.endswith("choose another --out, or remove it first\n")
