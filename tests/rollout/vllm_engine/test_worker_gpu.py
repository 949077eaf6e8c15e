"""The mended reload of vLLM's GPU worker, against a stand-in for vLLM, which needs a GPU."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tests.policy import tiny


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker whose model keeps what is loaded into it, after a reload of vLLM's own that loads nothing."""

    class Worker:
        def reload_weights(self, **named: Any) -> None:
            self.reloaded = named

    stand_ins = {
        "vllm.model_executor.model_loader": {"get_model_loader": lambda config: config},
        "vllm.v1.worker.gpu_worker": {"Worker": Worker},
    }
    for name, contents in stand_ins.items():
        for package in (name.rsplit(".", n)[0] for n in range(name.count("."), 0, -1)):
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        module = ModuleType(name)
        module.__dict__.update(contents)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "cascade.rollout.vllm_engine.worker_gpu", raising=False)
    from cascade.rollout.vllm_engine.worker_gpu import ReloadingWorker

    yield ReloadingWorker()
    sys.modules.pop("cascade.rollout.vllm_engine.worker_gpu")


def loaded_again(worker: Any, model: torch.nn.Module) -> set[str] | None:
    """Names of what a reload loads a second time; None: it does not ask."""
    loaded: list[set[str]] = []
    shown = SimpleNamespace(
        named_parameters=model.named_parameters, load_weights=lambda weights: loaded.append({n for n, _ in weights})
    )
    worker.model_runner = SimpleNamespace(
        get_model=lambda: shown,
        model_config=None,
        load_config=SimpleNamespace(get_all_weights=lambda config, _: iter(model.state_dict().items())),
    )
    worker.reload_weights(weights_path="there")
    assert worker.reloaded == {"weights_path": "there"}
    return loaded[0] if loaded else None


def test_the_parameters_of_mamba_layers_are_loaded_once_more(worker):
    model = tiny.nemotron_h("M*E")
    mamba = model.model.layers[0].mixer
    layers = ("in_proj.", "out_proj.", "norm.")  # Layers of vLLM's own kinds, which it reloads rightly.
    expected = {f"model.layers.0.mixer.{n}" for n, _ in mamba.named_parameters() if not n.startswith(layers)}
    assert loaded_again(worker, model) == expected


def test_models_without_mamba_layers_are_left_alone(worker):
    assert loaded_again(worker, tiny.nemotron_h("*E")) is None
