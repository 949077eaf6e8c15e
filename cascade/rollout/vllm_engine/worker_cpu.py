"""vLLM's CPU worker with a fix: reloading weights also reloads the experts of MoE layers."""

from typing import Any

from vllm.v1.worker.cpu_worker import CPUWorker


class ReloadingCPUWorker(CPUWorker):
    """The CPU kernels need packed expert weights. vLLM (seen in 0.32) packs them when it creates a layer's kernel, but
    does not create it again on reloading, and would compute with unpacked weights. So the kernels are created again."""

    def reload_weights(self, *arguments: Any, **named: Any) -> None:
        for layer in self.model_runner.get_model().modules():
            method: Any = getattr(layer, "quant_method", None)
            if getattr(method, "moe_kernel", None) is not None:
                method.moe_kernel = None
        super().reload_weights(*arguments, **named)
