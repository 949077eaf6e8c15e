"""vLLM's worker on the CPU, mended: it reloads the experts of a mixture too."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker


class ReloadingCPUWorker(CPUWorker):
    """The CPU kernels want experts' weights packed. vLLM (seen in 0.32) packs them where it makes the layer's kernel,
    which on reloading it takes to be there, and would compute with unpacked ones. So the kernels are made anew."""

    def reload_weights(self, *arguments: Any, **named: Any) -> None:
        for layer in self.model_runner.get_model().modules():
            method: Any = getattr(layer, "quant_method", None)
            if getattr(method, "moe_kernel", None) is not None:
                method.moe_kernel = None
        super().reload_weights(*arguments, **named)
