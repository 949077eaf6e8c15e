"""How the machine fares, read from Linux's files."""

import pytest

from cascade.tracking import system_metrics
from cascade.tracking.system_metrics import SystemSampler

MEMINFO = "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable:    250 kB\nHugePages_Total:  0\n"


def write(proc, user, idle, iowait):
    (proc / "self").mkdir(exist_ok=True)
    (proc / "stat").write_text(f"cpu  {user} 0 0 {idle} {iowait} 0 0 0 7 0\ncpu0 1 1 1 1\n")
    (proc / "meminfo").write_text(MEMINFO)
    (proc / "self" / "status").write_text("Name:\tpython\nVmRSS:\t   500 kB\n")


def test_shares_are_of_the_time_since_the_last_call(tmp_path):
    write(tmp_path, user=100, idle=100, iowait=0)
    sampler = SystemSampler(tmp_path, proc=tmp_path)
    write(tmp_path, user=130, idle=160, iowait=10)
    values = sampler.sample()
    assert values["system/cpu_utilization_percentage"] == pytest.approx(30.0)  # 30 of 100 ticks
    assert values["system/system_memory_usage_percentage"] == 75.0
    assert values["system/system_memory_usage_megabytes"] == pytest.approx(0.768)
    assert values["system/process_memory_usage_megabytes"] == pytest.approx(0.512)
    assert 0 < values["system/disk_usage_percentage"] <= 100
    assert "system/cpu_utilization_percentage" not in sampler.sample()  # no time has passed


def test_this_machine_can_be_read(tmp_path):
    values = SystemSampler(tmp_path).sample()
    assert values["system/process_memory_usage_megabytes"] > 1
    assert all(value >= 0 for value in values.values())


def test_a_gpu_is_told_of_where_torch_uses_one(tmp_path, monkeypatch):
    class Cuda:
        is_initialized = staticmethod(lambda: True)
        device_count = staticmethod(lambda: 2)
        memory_reserved = staticmethod(lambda index: (index + 1) * 10**6)

    monkeypatch.setitem(system_metrics.sys.modules, "torch", type("HalfImported", (), {}))
    assert not any("gpu" in name for name in SystemSampler(tmp_path).sample())
    monkeypatch.setitem(system_metrics.sys.modules, "torch", type("Torch", (), {"cuda": Cuda}))
    values = SystemSampler(tmp_path).sample()
    assert [values[f"system/gpu_{i}_memory_usage_megabytes"] for i in range(2)] == [1.0, 2.0]
