"""The model registry: checkpoints that passed the gate, under an alias, with their lineage."""

from typing import TYPE_CHECKING

from cascade.tracking.journal import metric_name
from cascade.tracking.notes import version_note

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

REGISTERED = "cascade.registered"


def register(client: "MlflowClient", run: "Run", name: str, alias: str, tags: dict[str, str]) -> str:
    """Register the checkpoint that `tags` describe and point the alias to it. Returns the version.

    Idempotent: a checkpoint is one version, found by its `checkpoint_hash`, and is registered once, so that an alias
    that a user moved since stays there.

    The version's source is a small file in the gate's run that has the checkpoint's path and
    hashes. DVC stores the weights; MLflow servers refuse paths outside their own store.
    """
    from mlflow.exceptions import MlflowException

    prefix = f"{name} {tags['checkpoint_hash']}"
    registered = run.data.tags.get(REGISTERED, "")
    if registered.startswith(prefix):
        return registered.rpartition(" ")[2]
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"name = '{name}'")
    version = next((v for v in versions if v.tags.get("checkpoint_hash") == tags["checkpoint_hash"]), None)
    if version is None:
        client.log_dict(run.info.run_id, tags, "checkpoint/lineage.json")
        source = f"runs:/{run.info.run_id}/checkpoint"
        names = {metric_name(key): value for key, value in tags.items()}
        version = client.create_model_version(
            name, source, run.info.run_id, tags=names, description=version_note(name, tags)
        )
    client.set_registered_model_alias(name, alias, version.version)
    client.set_tag(run.info.run_id, REGISTERED, f"{prefix} {version.version}")
    return str(version.version)
