"""System metrics while a node runs, read from /proc, so that no further package is needed.

The names are MLflow's, which has a separate page for `system/`.
"""

import shutil
import sys
from pathlib import Path

PROC = Path("/proc")
MEGABYTE = 1e6


class SystemSampler:
    """Metrics of this machine; of a node on several machines, of the first."""

    def __init__(self, disk: Path, proc: Path = PROC):
        self._disk = disk
        self._proc = proc
        self._ticks = self._cpu_ticks()

    def sample(self) -> dict[str, float]:
        """Memory in 10⁶ bytes, shares in percent; of the CPUs, the busy share of all since the last call."""
        old_ticks, self._ticks = self._ticks, self._cpu_ticks()
        idle, total = (now - then for now, then in zip(self._ticks, old_ticks, strict=True))
        memory = self._kibibytes("meminfo")
        used_kibibytes = memory["MemTotal"] - memory["MemAvailable"]
        disk = shutil.disk_usage(self._disk)
        values = {
            "system/system_memory_usage_megabytes": used_kibibytes * 1024 / MEGABYTE,
            "system/system_memory_usage_percentage": 100 * used_kibibytes / memory["MemTotal"],
            "system/process_memory_usage_megabytes": self._kibibytes("self/status")["VmRSS"] * 1024 / MEGABYTE,
            "system/disk_usage_percentage": 100 * disk.used / disk.total,
            "system/disk_available_megabytes": disk.free / MEGABYTE,
        }
        if total > 0:
            values["system/cpu_utilization_percentage"] = 100 * (1 - idle / total)
        return values | _gpu_memory()

    def _cpu_ticks(self) -> tuple[int, int]:
        """(idle, all) since the machine started, summed over its CPUs; waiting for a disk is idle (proc_stat(5))."""
        # The last two, of guests, are in the first two already.
        ticks = [int(field) for field in (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    def _kibibytes(self, file: str) -> dict[str, int]:
        lines = (line.split() for line in (self._proc / file).read_text().splitlines())
        return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


def _gpu_memory() -> dict[str, float]:
    """Memory that torch has reserved on each GPU, by torch's own count: a call to CUDA from another thread would
    disturb the capture of a CUDA graph."""
    torch = sys.modules.get("torch")
    # Another thread may be importing it.
    if torch is None or not hasattr(torch, "cuda") or not torch.cuda.is_initialized():
        return {}
    return {
        f"system/gpu_{index}_memory_usage_megabytes": torch.cuda.memory_reserved(index) / MEGABYTE
        for index in range(torch.cuda.device_count())
    }
