"""Paths of a project. DVC tracks data/, models/ and results/; .cascade/work/ holds resumable state and temporary
files."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    root: Path

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def sft_data(self) -> Path:
        """Packed sequences, Parquet: input_ids list<int32>, trained list<bool>, documents list<int32>."""
        return self.root / "data" / "sft"

    def prompts(self, domain: str) -> Path:
        """RL prompts, Parquet: id, domain, environment, source, level, row (the Gym row as JSON), pass_rate."""
        return self.root / "data" / "rl" / f"{domain}.parquet"

    def benchmark(self, domain: str) -> Path:
        """Held-out prompts, same columns."""
        return self.root / "data" / "benchmarks" / f"{domain}.parquet"

    def held_out(self, domain: str) -> Path:
        """Further held-out prompts, for regression checks; none where the recipe asks for none. Same columns."""
        return self.root / "data" / "held_out" / f"{domain}.parquet"

    def checkpoint(self, node: str) -> Path:
        return self.root / "models" / node

    def evaluation(self, node: str) -> Path:
        """results/evaluations/NODE/: summary.json (DVC metric) and rollouts.parquet (one row for each rollout)."""
        return self.root / "results" / "evaluations" / node

    def training(self, node: str) -> Path:
        """results/training/NODE/: metrics.json (DVC metric), steps.csv, rewards.csv, lengths.csv (DVC plots)."""
        return self.root / "results" / "training" / node

    def decision(self, node: str) -> Path:
        """results/decisions/NODE.json: what a teachers or gate node decided, and why."""
        return self.root / "results" / "decisions" / f"{node}.json"

    def check(self, node: str) -> Path:
        """results/checks/NODE/rollouts.parquet: the rollouts that a repair or gate node sampled in order to decide."""
        return self.root / "results" / "checks" / node

    def score_plots(self, gate: str) -> Path:
        """results/plots/GATE/: heat_map.csv, recovery.csv (DVC plots)."""
        return self.root / "results" / "plots" / gate

    def journal(self, node: str) -> Path:
        return self.root / ".cascade" / "journal" / f"{node}.jsonl"

    def work(self, node: str) -> Path:
        return self.root / ".cascade" / "work" / node
