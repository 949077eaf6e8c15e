"""`cascade publish`: publish a model that passed its gate, with its cards, to a directory or a Hub repository."""

import re
import shutil
from pathlib import Path

from cascade.commands.publish.data_card import data_card
from cascade.commands.publish.model_card import model_card
from cascade.errors import CascadeError
from cascade.evaluation.results import check_is_its_own
from cascade.layout import Layout
from cascade.recipe import Recipe
from cascade.utils.files import hash_directory, link_directory, read_json, write_atomic

HUB = "hf://"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
DATA_CARD = "DATA_CARD.md"


def publish_model(recipe: Recipe, layout: Layout, node: str, to: str, base_model: str | None = None) -> str:
    """Publish the checkpoint of `node` with README.md (its model card) and DATA_CARD.md. Returns where it is.

    `to` is a directory, which must not exist yet or be empty and appears whole, or `hf://org/name`. A repository that
    the Hub does not have yet is made private; the token is huggingface_hub's own (HF_TOKEN, or `hf auth login`).
    `base_model`: the base model's name on the Hub, for the card; by default what the base's own card says.
    Raises CascadeError where no gate has passed this very checkpoint, where the target is taken, and for what the
    Hub refuses.
    """
    if base_model is not None and not HUB_NAME.fullmatch(base_model):
        raise CascadeError(f"--base-model {base_model}: not a model's name on the Hub; write organisation/name")
    passed = require_passed(recipe, layout, node)
    cards = {"README.md": model_card(recipe, layout, node, base_model), DATA_CARD: data_card(recipe, layout)}
    if to.startswith(HUB):
        return _to_hub(layout, node, passed, cards, to.removeprefix(HUB))
    target = Path(to).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CascadeError(f"{target}: exists already; remove it or publish to another directory")
    temporary = target.with_name(f".{target.name}.publishing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(layout.checkpoint(node), temporary)
        _finish(temporary, node, passed, cards)
        temporary.replace(target)
    except OSError as error:
        raise CascadeError(f"{target}: cannot be written ({error.strerror}); publish to another directory") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return str(target)


def require_passed(recipe: Recipe, layout: Layout, node: str) -> str:
    """The hash of the checkpoint of `node` that every gate of which it is the candidate has passed.

    Raises CascadeError with the remedy where there is no such gate, one has not decided or not passed, or the
    checkpoint is another one since.
    """
    gates = [name for name, gate in recipe.gate.items() if gate.candidate == node]
    if not gates:
        candidates = ", ".join(sorted({gate.candidate for gate in recipe.gate.values()})) or "none"
        raise CascadeError(f"{node}: no gate decides on it; publish a gate's candidate (here: {candidates})")
    if not layout.checkpoint(node).is_dir():
        raise CascadeError(f"{layout.checkpoint(node)}: no such checkpoint; `cascade run` or `dvc pull` brings it")
    content = hash_directory(layout.checkpoint(node))
    for name in gates:
        if not layout.decision(name).exists():
            raise CascadeError(f"{node}: gate {name} has not decided yet; `cascade node {name}` does")
        decision = read_json(layout.decision(name))
        if not decision["passed"]:
            raise CascadeError(
                f"{node}: gate {name} has not passed it: {decision['words']}; change the recipe and `cascade run`"
            )
        if decision["checkpoint"] != content:
            check_is_its_own(node, content, layout)
            raise CascadeError(
                f"{node}: gate {name} passed another checkpoint ({decision['checkpoint'][:12]}) than {content[:12]} in "
                f"{layout.checkpoint(node)}; run `cascade evaluate {node}` and `cascade node {name}` again"
            )
    return content


def _finish(directory: Path, node: str, passed: str, cards: dict[str, str]) -> None:
    """Check that the copied checkpoint is the one that the gate passed, then write the cards."""
    if (content := hash_directory(directory)) != passed:
        raise CascadeError(f"{node}: its checkpoint changed while it was published ({content[:12]}); publish it again")
    for name, text in cards.items():
        write_atomic(directory / name, text)


def _to_hub(layout: Layout, node: str, passed: str, cards: dict[str, str], repository: str) -> str:
    from httpx2 import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    staged = layout.work("publish") / node
    shutil.rmtree(staged, ignore_errors=True)
    try:
        link_directory(layout.checkpoint(node), staged)
        _finish(staged, node, passed, cards)
        api = HfApi(library_name="cascade")
        api.create_repo(repository, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=staged,
            commit_message=f"{node}, checkpoint {passed[:12]}",
            # Weight files of an earlier publication under other names would be loaded too.
            delete_patterns=["*.safetensors", "*.safetensors.index.json"],
        )
    except HFValidationError as error:
        raise CascadeError(f"{HUB}{repository}: not a repository's name, organisation/name: {_line(error)}") from None
    except LocalTokenNotFoundError:
        raise CascadeError(f"{HUB}{repository}: no token for the Hub; set HF_TOKEN or run `hf auth login`") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        remedy = "set HF_TOKEN to a token that may write there" if status in (401, 403) else "publish again later"
        raise CascadeError(f"{HUB}{repository}: the Hub answered {status} ({_line(error)}); {remedy}") from None
    except TransportError as error:
        raise CascadeError(f"{HUB}{repository}: the Hub cannot be reached ({_line(error)}); try again later") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return str(commit.commit_url)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
