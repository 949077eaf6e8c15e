"""Recipes: both that are shipped are good; every mistake is one line that names its key."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from cascade import environments
from cascade.environments.registry import LEVELS
from cascade.errors import CascadeError, RecipeError
from cascade.layout import Layout
from cascade.recipe import Lora, Recipe, load
from cascade.recipe.library import find, use

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.fixture
def content() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "recipes" / "nano-mopd.yaml").read_text())


@pytest.fixture
def problem(tmp_path: Path):
    """The lines that loading a changed recipe prints, without the file's name."""

    def find_problem(content: Any) -> list[str]:
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        with pytest.raises(RecipeError) as caught:
            load(path)
        lines = str(caught.value).splitlines()
        assert all(line.startswith(f"{path}: ") for line in lines)
        return [line.removeprefix(f"{path}: ") for line in lines]

    return find_problem


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load(path)
    assert recipe.name == path.stem
    assert list(recipe.gate)


def test_the_papers_recipe_has_its_stages_in_order_and_its_numbers() -> None:
    recipe = load(ROOT / "recipes" / "nemotron-cascade-2-30b-a3b.yaml")
    main_line = ["swe_agentic_repair"]
    while (init := recipe.training[main_line[0]].init) != "base":
        main_line.insert(0, init)
    assert main_line == [
        "sft",
        "if_rl",
        "multi_domain_rl",
        "mopd",
        "rlhf",
        "rlhf_repair",
        "long_context_rl",
        "long_context_repair",
        "code_rl",
        "code_repair",
        "swe_agentless_rl",
        "swe_agentless_repair",
        "swe_agentic_rl",
        "swe_agentic_repair",
    ]
    for repair in recipe.repair.values():
        # Every checkpoint made before it is one of those it compares with.
        earlier = [name for name, node in recipe.training.items() if node.round < repair.round and name != repair.init]
        assert set(repair.against) == set(earlier)
        assert repair.mix.keys() == set(recipe.domains)
    assert recipe.rl["rlhf_teacher"].init == "sft"
    assert recipe.rl["rlhf"].kl == recipe.rl["rlhf_teacher"].kl == 0.03
    assert (recipe.distill["mopd"].prompts, recipe.distill["mopd"].rollouts) == (128, 4)
    assert (recipe.rl["swe_agentic_rl"].prompts, recipe.rl["swe_agentic_rl"].rollouts) == (16, 64)
    assert all(node.optimizer.learning_rate == 3e-6 for node in recipe.rl.values())


def test_a_typo_names_the_key_and_the_nearest_known_one(content: dict, problem: Any) -> None:
    content["rl"]["if_rl"]["optimizer"]["learning_rte"] = 1e-4
    assert problem(content) == ["rl.if_rl.optimizer.learning_rte: unknown key; did you mean learning_rate?"]


def test_a_strange_key_lists_the_known_ones(content: dict, problem: Any) -> None:
    content["curation"]["sources"]["mcqa"]["xyzzy"] = 1
    [line] = problem(content)
    assert line.startswith("curation.sources.mcqa.xyzzy: unknown key; known here: generator, path, dataset")


def test_a_missing_key_is_named(content: dict, problem: Any) -> None:
    del content["sft"]["sft"]["init"]
    assert problem(content) == ["sft.sft.init: missing"]


def test_two_problems_are_two_lines(content: dict, problem: Any) -> None:
    del content["sft"]["sft"]["epochs"]
    content["rl"]["if_rl"]["steps"] = 0
    assert problem(content) == [
        "sft.sft.epochs: missing",
        "rl.if_rl.steps: Input should be greater than 0 (it is 0)",
    ]


def test_a_cycle_is_shown(content: dict, problem: Any) -> None:
    content["rl"]["if_rl"]["init"] = "multi_domain_rl"
    [line] = problem(content)
    assert line == (
        "rl.if_rl: the nodes form a cycle (if_rl → multi_domain_rl → if_rl); let one of them start elsewhere"
    )


def test_judges_are_models_behind_an_address(content: dict, problem: Any, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(content)
    assert (recipe.judges.inputs, recipe.judging_threads) == ({}, recipe.threads)
    endpoint = {"url": "http://127.0.0.1:8000/v1", "model": "m", "concurrency": 32}
    recipe = Recipe.model_validate(content | {"judges": {"preference": endpoint | {"roles": True}}})
    assert recipe.judging_threads == 32
    assert recipe.judges.inputs == {"judges": {"preference": {"model": "m", "max_tokens": 16384, "roles": True}}}
    assert problem(content | {"judges": {"preferences": endpoint}}) == [
        "judges.preferences: unknown key; did you mean preference?"
    ]
    assert problem(content | {"judges": {"answer": endpoint | {"roles": True}}}) == [
        "judges.answer.roles: unknown key; known here: url, model, max_tokens, concurrency, timeout_seconds"
    ]
    [line] = problem(content | {"judges": {"answer": endpoint | {"url": "127.0.0.1:8000"}}})
    assert line.startswith("judges.answer.url: ")
    assert problem(content | {"judges": {"answer": {"url": "http://x/v1"}}}) == ["judges.answer.model: missing"]


def test_an_unknown_environment_is_named(content: dict, problem: Any) -> None:
    content["curation"]["sources"]["mcqa"]["generator"] = "mcq"
    [line] = problem(content)
    assert line.startswith("curation.sources.mcqa.generator: unknown environment 'mcq'; known: ")


def test_the_engine_of_whole_models_computes_layers_again_and_splits_nothing(
    content: dict, problem: Any, tmp_path: Path
) -> None:
    content["rl"]["if_rl"]["parallel"] = {"checkpoint_activations": True}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert load(path).rl["if_rl"].parallel.checkpoint_activations
    content["rl"]["if_rl"]["parallel"] = {"checkpoint_activations": True, "tensor": 2}
    assert "engine hf keeps the whole model on each GPU" in problem(content)[0]


@pytest.mark.parametrize(
    ("lora", "line"),
    [
        ({"rank": 0}, "sft.sft.lora.rank: Input should be greater than 0"),
        ({"ranks": 8}, "sft.sft.lora.ranks: unknown key; did you mean rank?"),
        ({"alpha": 0}, "sft.sft.lora.alpha: Input should be greater than 0"),
        ({"targets": []}, "sft.sft.lora.targets"),
    ],
)
def test_adapters_have_a_rank(content: dict, problem: Any, lora: dict, line: str) -> None:
    content["sft"]["sft"]["lora"] = lora
    assert problem(content)[0].startswith(line)


def test_adapters_and_their_engine(content: dict, problem: Any) -> None:
    content["sft"]["sft"]["lora"] = {"rank": 8, "targets": ["q_proj", "v_proj"]}
    assert Recipe.model_validate(content).sft["sft"].lora == Lora(rank=8, alpha=32.0, targets=("q_proj", "v_proj"))
    content["sft"]["sft"] |= {"lora": {}, "engine": "nemo"}
    del content["sft"]["sft"]["checkpoint_dtype"]
    assert problem(content) == ["sft.sft: lora: of engine hf alone; take it out or say hf"]
    content["sft"]["sft"] |= {"lora": None, "checkpoint_dtype": "float32"}
    [line] = problem(content)
    assert line.startswith("sft.sft: checkpoint_dtype: engine nemo stores weights in the types of init")


@pytest.mark.parametrize("share", [0.5, 0.31])
def test_mix_must_sum_to_one(content: dict, problem: Any, share: float) -> None:
    content["rl"]["multi_domain_rl"]["mix"]["tool_calling"] = share
    [line] = problem(content)
    assert line.startswith(f"rl.multi_domain_rl: mix: the shares sum to {0.7 + share:g}, not 1")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"servers": ["http://a:1"]}, "servers: for engine vllm only; take it out or say engine: vllm"),
        ({"weights": "shared"}, "weights: for engine vllm only; take it out or say engine: vllm"),
        ({"engine": "vllm", "servers": ["http://a:1"], "memory": 0.5}, "memory: is for an engine beside the trainer"),
    ],
)
def test_where_rollouts_are_sampled_fits_the_engine(content: dict, problem: Any, changes: dict, line: str) -> None:
    content["rl"]["if_rl"]["rollout"] |= changes
    [found] = problem(content)
    assert found.startswith(f"rl.if_rl.rollout: {line}")


@pytest.mark.parametrize("server", ["gpu1:8000", "http://gpu1:8000/v1"])
def test_servers_are_addresses(content: dict, problem: Any, server: str) -> None:
    content["rl"]["if_rl"]["rollout"] |= {"engine": "vllm", "servers": [server]}
    [found] = problem(content)
    assert found.startswith("rl.if_rl.rollout.servers.0: ")


def test_levels_must_sum_to_one(content: dict, problem: Any) -> None:
    content["curation"]["sources"]["math"]["levels"] = {1: 0.5}
    [line] = problem(content)
    assert line.startswith("curation.sources.math: levels: the shares sum to 0.5, not 1")


@pytest.mark.parametrize("name", environments.names())
def test_levels_are_those_of_the_generator(content: dict, problem: Any, name: str) -> None:
    levels = LEVELS.get(name, 0)
    if levels:
        next(iter(environments.get(name).generate(1, 0, levels)))
        with pytest.raises(CascadeError, match=f"{levels}"):
            next(iter(environments.get(name).generate(1, 0, levels + 1)))
    content["curation"]["sources"]["math"] |= {"generator": name, "levels": {levels + 1: 1.0}}
    [line] = problem(content)
    told = f"{name} has levels 1 to {levels}; there is no level {levels + 1}"
    told = told if levels else f"{name} has no tasks of its own; known generators: code, competition"
    assert line.startswith(f"curation.sources.math: levels: {told}")


def test_a_teacher_that_is_not_upstream_is_named(content: dict, problem: Any) -> None:
    content["sft"]["other_sft"] = copy.deepcopy(content["sft"]["sft"])
    content["teachers"]["select_teachers"]["candidates"].append("other_sft")
    [line] = problem(content)
    assert line == (
        "distill.mopd.teachers: candidate 'other_sft' of select_teachers is fine-tuned by other_sft, "
        "'multi_domain_rl' by sft: no SFT node in common; leave it out"
    )


def test_a_side_branch_of_the_same_sft_may_teach(content: dict) -> None:
    content["rl"]["branch"] = {**content["rl"]["if_rl"], "init": "sft"}
    content["teachers"]["select_teachers"]["candidates"].append("branch")
    recipe = Recipe.model_validate(content)
    assert recipe.evaluated_in(1) == ["sft", "if_rl", "multi_domain_rl", "branch"]


@pytest.mark.parametrize("start", ["base", "multi_domain_rl"])
def test_branches_of_the_base_model_may_teach_each_other_and_the_base(content: dict, start: str) -> None:
    for name in ("if_rl", "multi_domain_rl"):
        content["rl"][name]["init"] = "base"
    content["distill"]["mopd"]["init"] = start
    recipe = Recipe.model_validate(content)
    assert recipe.teachers["select_teachers"].candidates == ["sft", "if_rl", "multi_domain_rl"]


@pytest.mark.parametrize(
    ("kind", "node", "key", "value", "line"),
    [
        (
            "rl",
            "if_rl",
            "init",
            "stf",
            "rl.if_rl.init: no such node 'stf'; have base, sft, if_rl, multi_domain_rl, mopd",
        ),
        (
            "gate",
            "release",
            "candidate",
            "x",
            "gate.release.candidate: no such node 'x'; have sft, if_rl, multi_domain_rl",
        ),
        ("distill", "mopd", "teachers", "x", "distill.mopd.teachers: no such node 'x'; have select_teachers"),
        ("rl", "if_rl", "mix", {"poetry": 1.0}, "rl.if_rl.mix.poetry: no source in curation.sources gives RL prompts"),
        (
            "teachers",
            "select_teachers",
            "domains",
            {"math": ["mopd"]},
            "teachers.select_teachers.domains.math: 'mopd' is",
        ),
        ("teachers", "select_teachers", "domains", {"x": ["sft"]}, "teachers.select_teachers.domains.x: no source"),
        ("distill", "mopd", "round", 1, "distill.mopd.round: 1; a distillation opens the round after its teachers', 2"),
        ("gate", "release", "round", 1, "gate.release.round: 1, but its candidate 'mopd' is of round 2"),
        ("rl", "if_rl", "round", 2, "rl.multi_domain_rl.round: 1, but its init 'if_rl' is of round 2"),
        ("gate", "release", "round", 3, "gate.release.round: 3, but no distillation or repair opens that round"),
        ("rl", "if_rl", "rollouts", 1, "rl.if_rl.rollouts: Input should be greater than 1 (it is 1)"),
        ("sft", "sft", "engine", "jax", "sft.sft.engine: Input should be 'hf' or 'nemo' (it is 'jax')"),
    ],
)
def test_a_wrong_value_names_its_key(
    content: dict, problem: Any, kind: str, node: str, key: str, value: Any, line: str
) -> None:
    content[kind][node][key] = value
    found = problem(content)
    assert found[0].startswith(line), found


@pytest.fixture
def repaired(content: dict) -> dict[str, Any]:
    """The content with a repair after MOPD, and the gate after that."""
    against = ["sft", "if_rl", "multi_domain_rl"]
    repair = copy.deepcopy(content["distill"]["mopd"])
    del repair["teachers"]
    repair |= {"init": "mopd", "reads_round": 2, "round": 3, "against": against}
    content["repair"] = {"mend": repair}
    content["gate"]["release"] |= {"round": 3, "candidate": "mend", "against": list(against)}
    return content


def test_a_repair_reads_one_round_and_opens_the_next(repaired: dict) -> None:
    recipe = Recipe.model_validate(repaired)
    assert list(recipe.training)[-1] == "mend"
    assert recipe.awaited("mend") == recipe.evaluated_in(2) == ["mopd"]
    assert recipe.awaited("release") == recipe.evaluated_in(3) == ["mend"]
    assert (recipe.teachers_chosen_by("mend"), recipe.teachers_chosen_by("mopd")) == ("mend", "select_teachers")


def test_a_node_whose_evaluation_alone_is_awaited_comes_first(repaired: dict) -> None:
    repaired["rl"]["beside"] = {**repaired["rl"]["if_rl"], "init": "mopd", "round": 2}
    order = list(Recipe.model_validate(repaired).ordered())
    assert order.index("beside") < order.index("mend")


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("init", "base", "repair.mend.init: 'base' cannot be used here; have sft, if_rl"),
        ("against", ["x"], "repair.mend.against: no such node 'x'; have sft"),
        ("against", [], "repair.mend.against: List should have at least 1 item"),
        ("against", ["mend"], "repair.mend.reads_round: 2, but its against 'mend' is of round 3"),
        ("reads_round", 1, "repair.mend.reads_round: 1, but its init 'mopd' is of round 2"),
        ("round", 4, "repair.mend.round: 4; a repair opens the round after the one it reads, 3"),
        ("teachers", "select_teachers", "repair.mend.teachers: unknown key"),
        ("significance", 0, "repair.mend.significance: Input should be greater than 0"),
        ("minimum_effect", -0.1, "repair.mend.minimum_effect: Input should be greater than or equal to 0"),
        ("mix", {"math": 1.0}, "repair.mend.mix: no share for instruction_following; a repair trains on every"),
    ],
)
def test_a_repair_out_of_order_names_its_key(repaired: dict, problem: Any, key: str, value: Any, line: str) -> None:
    repaired["repair"]["mend"][key] = value
    if key == "round":
        repaired["gate"]["release"]["round"] = value
    found = problem(repaired)
    assert found[0].startswith(line), found


def test_a_repair_cannot_wait_for_a_round_that_nothing_opens(repaired: dict, problem: Any) -> None:
    repaired["repair"]["mend"] |= {"reads_round": 3, "round": 4}
    repaired["gate"]["release"]["round"] = 4
    [line] = problem(repaired)
    assert line == "repair.mend.reads_round: 3, but no distillation or repair opens that round"


def test_a_repair_is_not_taught_by_another_cascade(repaired: dict, problem: Any) -> None:
    repaired["sft"]["other_sft"] = copy.deepcopy(repaired["sft"]["sft"])
    repaired["repair"]["mend"]["against"] = ["other_sft"]
    [line] = problem(repaired)
    assert line.startswith("repair.mend.against: candidate 'other_sft' is fine-tuned by other_sft, 'mopd' by sft")


def test_node_names_are_unique(content: dict, problem: Any) -> None:
    content["rl"]["sft"] = copy.deepcopy(content["rl"]["if_rl"])
    assert problem(content)[0].startswith("sft.sft: a node name must be unique")


@pytest.mark.parametrize("name", ["", "../sft", "if rl", "IF_RL", "if.rl", "if@rl", "-rl", "rl\n"])
def test_names_that_cannot_name_files_and_stages_are_refused(content: dict, name: str) -> None:
    content["rl"][name] = content["rl"]["if_rl"]
    with pytest.raises(RecipeError, match="not a node name"):
        Recipe.model_validate(content)


@pytest.mark.parametrize("name", ["base", "curate", "pipeline", "report"])
def test_names_of_other_files_and_runs_are_refused(content: dict, problem: Any, name: str) -> None:
    content["rl"][name] = copy.deepcopy(content["rl"]["if_rl"])
    [line] = problem(content)
    assert line.startswith(f"rl.{name}: the name stands for ")


def test_a_conversation_must_fit_into_a_sequence(content: dict, problem: Any) -> None:
    content["curation"] |= {"max_tokens": 513, "sequence_length": 512}
    assert problem(content) == [
        "curation: max_tokens 513 is more than sequence_length 512; a conversation must fit into one sequence"
    ]
    content["curation"]["max_tokens"] = 512
    assert Recipe.model_validate(content).curation.max_tokens == 512


def test_a_pool_needs_its_node(content: dict, problem: Any) -> None:
    content["pools"] = {"if_rll": {"pool": "gpu"}}
    assert problem(content)[0].startswith("pools.if_rll: there is no such node")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ({"machines": 2}, "machines: launcher local has one; slurm and kubernetes can have more"),
        ({"launcher": "torchrun", "gpus": 1}, "gpus: launcher torchrun starts a process on each, and there are 1"),
        ({"image": "x"}, "image: launcher local starts no container; take it out"),
        ({"launcher": "torchrun", "gpus": 2, "options": ["--time=1"]}, "options: they are sbatch's"),
        ({"launcher": "kubernetes", "image": "x"}, "manifest: launcher kubernetes needs it"),
        ({"launcher": "slurm", "manifest": "x"}, "manifest: launcher kubernetes needs it, and no other does"),
        ({"launcher": "kubernetes", "manifest": "x"}, "image: launcher kubernetes needs it"),
        ({"launcher": "ssh"}, "pools.if_rl.launcher: Input should be 'local', 'torchrun', 'slurm' or 'kubernetes'"),
    ],
)
def test_a_place_that_cannot_be_is_one_line(content: dict, problem: Any, place: dict, told: str) -> None:
    content["pools"] = {"if_rl": place}
    [line] = problem(content)
    assert told in line
    assert line.startswith("pools.if_rl")


def test_a_node_without_a_place_runs_where_the_flow_runs(content: dict) -> None:
    content["pools"] = {"if_rl": {"pool": "gpu", "launcher": "torchrun", "gpus": 8}}
    recipe = Recipe.model_validate(content)
    assert (recipe.place("if_rl").pool, recipe.place("if_rl").gpus) == ("gpu", 8)
    assert (recipe.place("sft").pool, recipe.place("sft").launcher) == ("local", "local")


def test_a_source_has_one_origin(content: dict, problem: Any) -> None:
    content["curation"]["sources"]["mcqa"]["path"] = "rows.jsonl"
    assert problem(content)[0].startswith("curation.sources.mcqa: needs exactly one of generator, path, dataset")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [", "not YAML"), ("", "not a recipe"), ("- 1", "not a recipe"), ("name: x\nname: [", "not YAML")],
)
def test_files_that_are_no_recipe(problem: Any, text: str, line: str) -> None:
    [found] = problem(text)
    assert found.startswith(line)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="not a text file"):
        load(tmp_path / "x.yaml")
    with pytest.raises(RecipeError, match=r"no such file; `cascade recipe use nano`"):
        load(tmp_path / "y.yaml")


def test_parents_come_before_children(content: dict) -> None:
    recipe = Recipe.model_validate(content)
    order = list(recipe.ordered())
    assert all(order.index(parent) < order.index(name) for name in order for parent in recipe.parents(name))


def test_the_common_start_is_the_last_node_that_all_descend_from(content: dict) -> None:
    recipe = Recipe.model_validate(content)
    names = list(recipe.rl)
    assert recipe.common_start([names[0]]) == names[0]
    assert recipe.common_start(["mopd", names[0]]) == names[0]
    content["rl"]["branch"] = {**content["rl"][names[0]], "init": "sft"}
    branched = Recipe.model_validate(content)
    assert branched.common_start(["branch", "mopd"]) == "sft"
    assert branched.common_start(["sft", "branch", names[-1]]) == "sft"
    content["sft"]["other"] = {**content["sft"]["sft"], "init": "base"}
    assert Recipe.model_validate(content).common_start(["other", "mopd"]) == "base"


def test_use_copies_the_recipe_and_says_what_changed(tmp_path: Path, content: dict) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "nano.yaml").write_text(yaml.safe_dump(content))
    use("nano", layout)
    content["rl"]["if_rl"]["steps"] = 7
    (tmp_path / "recipes" / "short.yaml").write_text(yaml.safe_dump({**content, "name": "short"}))
    before = load(layout.params).rl["if_rl"].steps
    lines = use("short", layout)
    assert lines[0].startswith("params.yaml is now short")
    assert lines[0].endswith("2 values changed")
    assert f"  rl.if_rl.steps: {before} → 7" in lines
    assert load(layout.params).rl["if_rl"].steps == 7
    assert use("short", layout)[0].endswith("nothing changed")
    use(str(ROOT / "recipes" / "nano.yaml"), layout)
    lines = use(str(ROOT / "recipes" / "smollm2.yaml"), layout)
    assert len(lines) == 2
    assert "cascade recipe show" in lines[1]


def test_a_bad_recipe_does_not_become_the_active_one(tmp_path: Path, content: dict) -> None:
    layout = Layout(tmp_path)
    layout.params.write_text("name: untouched\n")
    del content["sft"]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError):
        use(str(tmp_path / "bad.yaml"), layout)
    assert layout.params.read_text() == "name: untouched\n"


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"big: neither a recipe in recipes/ .*nano.* nor a file"):
        find("big", Layout(ROOT))


def test_a_recipe_shares_no_block(problem: Any, content: dict) -> None:
    text = yaml.safe_dump(content, sort_keys=False)
    shared = text.replace("    rollout:\n", "    rollout: &episodes\n", 1)
    assert shared != text
    lines = problem(shared + "x: *episodes\n")
    assert lines == [
        f"line {len(shared.splitlines()) + 1}: *episodes takes a block from elsewhere, and `dvc exp run -S` cannot "
        "change such a block in one place alone; write out what &episodes holds"
    ]


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("registered_name", "org/cascade-nano", "gate.release.registered_name: 'org/cascade-nano' cannot be a name in"),
        ("registered_name", "it's", 'gate.release.registered_name: "it\'s" cannot be a name in MLflow'),
        ("registered_name", "", "gate.release.registered_name: '' cannot be a name in MLflow"),
        ("alias", "latest", "gate.release.alias: 'latest' cannot be an alias in MLflow"),
        ("alias", "Latest", "gate.release.alias: 'Latest' cannot be an alias"),
        ("alias", "v3", "gate.release.alias: 'v3' cannot be an alias"),
        ("alias", "the best", "gate.release.alias: 'the best' cannot be an alias"),
    ],
)
def test_names_that_mlflow_would_refuse_when_all_is_done_are_refused_at_once(
    content: dict, problem: Any, key: str, value: str, line: str
) -> None:
    content["gate"]["release"][key] = value
    assert problem(content)[0].startswith(line)


@pytest.mark.parametrize("key", ["name", "family"])
def test_a_family_is_the_name_of_an_experiment(content: dict, problem: Any, key: str) -> None:
    content[key] = ""
    assert problem(content)[0].startswith(f"{key}: '' cannot be a name in MLflow")


def test_a_domain_is_part_of_metrics_names(content: dict, problem: Any) -> None:
    content["curation"]["sources"]["math"]["domain"] = ".."
    assert problem(content)[0].startswith("curation.sources.math.domain: '..' cannot be a name in MLflow")
