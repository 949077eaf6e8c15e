"""The former name of `cascade.rollout.vllm_engine.worker_gpu`, which commands of running servers may still hold."""

from cascade.rollout.vllm_engine.worker_gpu import ReloadingWorker as ReloadingWorker
