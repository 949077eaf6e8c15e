import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from huggingface_hub import DatasetCard, ModelCard

from cascade import cli
from cascade.commands.publish.data_card import data_card
from cascade.commands.publish.model_card import model_card
from cascade.commands.publish.publish import publish_model
from cascade.decisions.gate import gate
from cascade.decisions.history import FileHistory
from cascade.decisions.teacher_selection import select_teachers
from cascade.errors import CascadeError
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import hash_directory, read_json, write_atomic, write_json
from tests import hub
from tests.evaluation.project import recipe_with_gate, share, write_evaluation

RECIPE = recipe_with_gate()
STEP = {"in": 12, "out": 10, "rejected": {"exact_duplicate": 2}}


@pytest.fixture
def project(tmp_path):
    """Everything evaluated, `mopd` passed by the gate."""
    layout = Layout(tmp_path)
    write_atomic(layout.params, "name: miniature\n")
    write_atomic(layout.root / "models" / "base" / "README.md", "---\nlicense: apache-2.0\n---\n# base\n")
    write_evaluation(layout, "sft", {"one": share(16), "two": share(30)})
    write_evaluation(layout, "rl", {"one": share(36), "two": share(20)})
    write_evaluation(layout, "mopd", {"one": share(35), "two": share(28)})
    written = {"node": "mopd", "checkpoint": hash_directory(layout.checkpoint("mopd"))}
    write_json(layout.training("mopd") / "manifest.json", {**written, "seconds": 90.0, "tokens": 1234})
    write_atomic(layout.training("mopd") / "steps.csv", "step,rollout/groups,rollout/length\n0,4,10\n1,6,20\n")
    counts = {"kept": 10, "drawn": 12, "steps": {"read": STEP}, "sources": {"one": {"kept": 7}, "two": {"kept": 3}}}
    write_json(layout.root / "data" / "report.json", {"rl": counts})
    for path, rows in ((layout.prompts("one"), 3), (layout.benchmark("one"), 2)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": ["a"] * rows, "pass_rate": pa.array([0.5] * rows, pa.float32())}), path)
    select_teachers(RECIPE, "choose", layout, FileHistory(layout))
    gate(RECIPE, "release", layout, FileHistory(layout))
    return layout


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub.serve(tmp_path / "hub") as found:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", found.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)  # as of `cascade publish`
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield found


def test_model_card_of_an_evaluated_base_and_of_adapters(project):
    assert "| one | 87.5 " in model_card(RECIPE, project, "mopd")
    assert "| not measured |" in model_card(RECIPE, project, "mopd")
    write_evaluation(project, "base", {"one": share(6), "two": share(4)})
    content = RECIPE.model_dump(mode="json")
    content["distill"]["mopd"]["lora"] = {"rank": 8}
    text = model_card(Recipe.model_validate(content), project, "mopd")
    (row,) = [line for line in text.splitlines() if line.startswith("| one | 87.5 ")]
    assert "| 87.5 | 15.0 | 40 |" in row
    assert "| mopd | multi-domain on-policy distillation, adapters (LoRA) of rank 8 |" in text


@pytest.mark.parametrize(("form", "rounds"), [("nvfp4", False), ("fp8", True)])
def test_the_card_of_a_quantised_checkpoint_says_what_it_takes_to_load_it(project, form: str, rounds: bool):
    write_evaluation(project, "small", {"one": share(16), "two": share(30)})
    content = RECIPE.model_dump(mode="json")
    content["quantize"] = {"small": {"init": "mopd", "round": 2, "format": form}}
    text = model_card(Recipe.model_validate(content), project, "small")
    assert f"The weights are in {form}, in compressed-tensors' layout: vLLM serves the directory (`vllm serve " in text
    assert "`pip install compressed-tensors`" in text
    assert ("Engines also round activations, which the scores above leave out." in text) == rounds
    assert "as it is" not in text
    assert "The directory loads in transformers as it is" in model_card(Recipe.model_validate(content), project, "mopd")


def test_model_card_by_hand(project):
    text = model_card(RECIPE, project, "mopd")
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.model_name) == ("apache-2.0", "transformers", "miniature")
    assert data.tags == ["cascade", "distill", "rl", "sft"]
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in data.eval_results}
    assert found == {
        ("miniature-one", "avg@4"): 87.5,
        ("miniature-one", "pass@1"): 87.5,
        ("miniature-two", "avg@4"): 70.0,
        ("miniature-two", "pass@1"): 70.0,
    }
    assert "Gate `release`: passed." in text
    assert "| mopd | multi-domain on-policy distillation | one, two | 2 | 1,234 | 1.5 |" in text
    assert "| mopd | two | sft |" in text
    assert read_json(project.decision("release"))["checkpoint"] in text


def test_a_card_names_licence_and_base_model_as_the_bases_card_does(project):
    assert "post-trained from `models/base` by" in model_card(RECIPE, project, "mopd")
    assert "Licence: apache-2.0, as of its base model's card." in model_card(RECIPE, project, "mopd")
    told = "license: other\nlicense_name: open-model\nlicense_link: https://x.example/l\nbase_model: org/first\n"
    (project.root / "models" / "base" / "README.md").write_text(f"---\n{told}---\n# base\n")
    text = model_card(RECIPE, project, "mopd")
    data = ModelCard(text).data
    assert (data.license, data.base_model) == ("other", "org/first")
    assert (data.get("license_name"), data.get("license_link")) == ("open-model", "https://x.example/l")
    assert "post-trained from [org/first](https://huggingface.co/org/first) by" in text
    assert "Licence: open-model (https://x.example/l), as of its base model's card." in text


def test_the_base_models_name_may_be_said(project, tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.recipe.load", lambda path: RECIPE)
    monkeypatch.chdir(project.root)
    command = ["publish", "mopd", "--to", str(tmp_path / "out"), "--base-model"]
    done = CliRunner().invoke(cli.main, [*command, "a b"])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)
    assert "not a model's name on the Hub; write organisation/name" in done.output
    assert CliRunner().invoke(cli.main, [*command, "org/second"]).exit_code == 0
    assert ModelCard((tmp_path / "out" / "README.md").read_text()).data.base_model == "org/second"


def test_a_card_claims_no_licence_that_the_base_does_not_have(project):
    (project.root / "models" / "base" / "README.md").write_text("# base\n")
    assert "The card of its base model names no licence." in model_card(RECIPE, project, "mopd")
    assert ModelCard(model_card(RECIPE, project, "mopd")).data.license is None
    (project.root / "models" / "base" / "README.md").unlink()
    assert ModelCard(model_card(RECIPE, project, "mopd")).data.license is None


def test_no_card_without_facts(project):
    with pytest.raises(CascadeError, match="no training node"):
        model_card(RECIPE, project, "choose")
    (project.evaluation("mopd") / "summary.json").unlink()
    with pytest.raises(CascadeError, match="cascade evaluate mopd"):
        model_card(RECIPE, project, "mopd")
    (project.root / "data" / "report.json").unlink()
    with pytest.raises(CascadeError, match="cascade node curate"):
        data_card(RECIPE, project)


def test_data_card_by_hand(project):
    text = data_card(RECIPE, project)
    data = DatasetCard(text).data.to_dict()
    assert data["configs"] == [
        {
            "config_name": "one",
            "data_files": [
                {"split": "train", "path": "rl/one.parquet"},
                {"split": "test", "path": "benchmarks/one.parquet"},
            ],
        }
    ]
    (info,) = data["dataset_info"]
    assert info["features"] == [{"name": "id", "dtype": "string"}, {"name": "pass_rate", "dtype": "float32"}]
    assert [(s["name"], s["num_examples"]) for s in info["splits"]] == [("train", 3), ("test", 2)]
    assert "| read | 12 | 10 | exact_duplicate 2 |" in text
    assert "| one | generated: mcqa | one | 0 | 7 | 0 |" in text
    assert "license" not in data


def test_a_directory_has_the_checkpoint_and_its_cards(project, tmp_path):
    target = tmp_path / "out" / "model"
    assert publish_model(RECIPE, project, "mopd", str(target)) == str(target)
    assert sorted(p.name for p in target.iterdir()) == ["DATA_CARD.md", "README.md", "config.json"]
    assert (target / "config.json").read_bytes() == (project.checkpoint("mopd") / "config.json").read_bytes()
    assert (target / "README.md").read_text() == model_card(RECIPE, project, "mopd")
    assert [p.name for p in target.parent.iterdir()] == ["model"]
    with pytest.raises(CascadeError, match="exists already"):
        publish_model(RECIPE, project, "mopd", str(target))


def test_what_no_gate_passed_is_refused_and_nothing_written(project, tmp_path):
    target = tmp_path / "out"

    def refused(node: str, words: str) -> None:
        with pytest.raises(CascadeError, match=words) as error:
            publish_model(RECIPE, project, node, str(target))
        assert "\n" not in str(error.value)
        assert not target.exists()

    refused("rl", r"no gate decides on it; publish a gate's candidate \(here: mopd\)")
    decision = read_json(project.decision("release"))
    write_json(project.decision("release"), {**decision, "passed": False, "words": "mopd falls in one"})
    refused("mopd", "gate release has not passed it: mopd falls in one")
    project.decision("release").unlink()
    refused("mopd", "has not decided yet; `cascade node release`")
    write_json(project.decision("release"), decision)
    write_atomic(project.checkpoint("mopd") / "config.json", '{"node": "another"}')
    refused("mopd", "its files are not those that the node wrote; `cascade node mopd` makes it again")
    manifest = project.training("mopd") / "manifest.json"
    write_json(manifest, read_json(manifest) | {"checkpoint": hash_directory(project.checkpoint("mopd"))})
    refused("mopd", "passed another checkpoint")


def test_the_hub_gets_the_files_in_one_commit_and_loses_old_weights(project, server):
    repository = server.root / "models" / "org" / "name"
    write_atomic(repository / "model-00001-of-00002.safetensors", "old")
    write_atomic(repository / "notes.md", "mine")
    url = publish_model(RECIPE, project, "mopd", "hf://org/name")
    assert url == f"{server.url}/org/name/commit/{hub.COMMIT}"
    (created,) = server.created
    assert (created["name"], created["organization"], created["visibility"]) == ("name", "org", "private")
    files = sorted(path.name for path in repository.iterdir())
    assert files == ["DATA_CARD.md", "README.md", "config.json", "notes.md"]
    assert (repository / "README.md").read_text() == model_card(RECIPE, project, "mopd")
    assert len(server.commits) == 1
    assert server.tokens == {"Bearer hf_secret"}
    assert not (project.work("publish") / "mopd").exists()


@pytest.mark.parametrize(("status", "remedy"), [(401, "set HF_TOKEN"), (403, "set HF_TOKEN"), (400, "publish again")])
def test_what_the_hub_refuses_is_one_line(project, server, status, remedy):
    server.status = {"api": status}
    with pytest.raises(CascadeError, match=remedy) as error:
        publish_model(RECIPE, project, "mopd", "hf://org/name")
    assert "\n" not in str(error.value)
    assert "hf_secret" not in str(error.value)


def test_a_hub_that_is_not_there_and_a_name_that_is_none(project, server, monkeypatch):
    with pytest.raises(CascadeError, match="not a repository's name"):
        publish_model(RECIPE, project, "mopd", "hf://a/b/c")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(CascadeError, match="cannot be reached"):
        publish_model(RECIPE, project, "mopd", "hf://org/name")


def test_the_command_refuses_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["publish", "mopd", "--to", "out"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1
