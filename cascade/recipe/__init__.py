"""The recipe: its sections, the graph of its nodes, where nodes run. Errors name the key and the remedy."""

from cascade.judges.settings import Judges
from cascade.recipe.data import Curation, Decontamination, Difficulty, Mixture, Source
from cascade.recipe.graph import BASE, CURATE, PIPELINE, REPORT
from cascade.recipe.loader import load, recipe_hash
from cascade.recipe.placement import LOCAL_POOL, Placement, Verification, Workers
from cascade.recipe.recipe import Recipe
from cascade.recipe.sections import (
    PLACEMENT,
    Comparison,
    Corrections,
    Distillation,
    DistillNode,
    Evaluation,
    GateNode,
    HeldOut,
    Lora,
    Node,
    OffPolicyNode,
    OnPolicyNode,
    Optimizer,
    Parallel,
    RepairNode,
    RLNode,
    Rollout,
    SFTNode,
    SolveNode,
    TeacherMemory,
    TeachersNode,
)
from cascade.utils.config import Section

__all__ = [
    "BASE",
    "CURATE",
    "LOCAL_POOL",
    "PIPELINE",
    "PLACEMENT",
    "REPORT",
    "Comparison",
    "Corrections",
    "Curation",
    "Decontamination",
    "Difficulty",
    "DistillNode",
    "Distillation",
    "Evaluation",
    "GateNode",
    "HeldOut",
    "Judges",
    "Lora",
    "Mixture",
    "Node",
    "OffPolicyNode",
    "OnPolicyNode",
    "Optimizer",
    "Parallel",
    "Placement",
    "RLNode",
    "Recipe",
    "RepairNode",
    "Rollout",
    "SFTNode",
    "Section",
    "SolveNode",
    "Source",
    "TeacherMemory",
    "TeachersNode",
    "Verification",
    "Workers",
    "load",
    "recipe_hash",
]
