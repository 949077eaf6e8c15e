"""vLLM's GPU worker with a fix: reloading weights also reloads Mamba layers."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from vllm.model_executor.model_loader import get_model_loader
from vllm.v1.worker.gpu_worker import Worker

MAMBA = (".A_log", ".D", ".dt_bias", ".conv1d.weight", ".conv1d.bias")


class ReloadingWorker(Worker):
    """vLLM (seen in 0.20; 0.32 counts the same way) considers a layer reloaded once as many elements were copied as it
    has. A Mamba layer's A is copied twice, and a buffer that is a view of its convolution's weight is never loaded, so
    some of the layer's memory stays uninitialised. So its parameters are loaded once more, in place, as at the start.
    """

    def reload_weights(self, *arguments: Any, **named: Any) -> None:
        super().reload_weights(*arguments, **named)
        runner: Any = self.model_runner
        model = runner.get_model()
        if any(name.endswith(".dt_bias") for name, _ in model.named_parameters()):
            model.load_weights(self._mamba_weights(runner, model))

    def _mamba_weights(self, runner: Any, model: Any) -> Iterator[tuple[str, Tensor]]:
        for name, weight in get_model_loader(runner.load_config).get_all_weights(runner.model_config, model):
            if name.endswith(MAMBA):
                yield name, weight
