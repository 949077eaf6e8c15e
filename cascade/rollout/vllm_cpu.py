"""The former name of `cascade.rollout.vllm_engine.worker_cpu`, which commands of running servers may still hold."""

from cascade.rollout.vllm_engine.worker_cpu import ReloadingCPUWorker as ReloadingCPUWorker
