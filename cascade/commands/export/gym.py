"""Prompts for NeMo Gym: the server and agent that verify the rows of a domain, and the rows themselves."""

import json
from dataclasses import dataclass
from pathlib import Path

from cascade.layout import Layout
from cascade.recipe import OnPolicyNode, Recipe, RLNode
from cascade.utils.files import open_atomic

POLICY_SERVER = "responses_api_models/vllm_model/configs/vllm_model_for_training.yaml"


@dataclass(frozen=True)
class Served:
    """An environment of NeMo Gym: its configuration, and the agent that rows name in `agent_ref`. Names and paths are
    those of github.com/NVIDIA-NeMo/Gym in August 2026."""

    config: str
    agent: str
    generated: bool = False
    """Whether it can verify the rows of Cascade's generator."""
    otherwise: str = ""
    """How its verdicts differ from Cascade's."""


def _simple(name: str, generated: bool = False, server: str | None = None) -> Served:
    folder = f"resources_servers/{server or name}/configs"
    return Served(f"{folder}/{server or name}.yaml", f"{name}_simple_agent", generated)


SERVED = {
    "reasoning_gym": _simple("reasoning_gym", generated=True),
    "math": Served(
        "resources_servers/math_with_judge/configs/math_with_judge.yaml",
        "math_with_judge_simple_agent",
        generated=True,
        otherwise="the server gives math-verify the whole response, which takes boxes close to each other for a set: "
        "of \\boxed{5}. No, so \\boxed{32} the answer is {5, 32} there, and 32, the last box, here",
    ),
    "instruction_following": _simple("instruction_following", generated=True),
    "mcqa": _simple("mcqa", generated=True),
    "structured_output": Served(
        "resources_servers/structured_outputs/configs/structured_outputs_json_yaml_xml_v1.yaml",
        "structured_outputs_simple_agent",
        generated=True,
    ),
    "tool_calling": _simple("workplace_assistant"),
    "code": _simple("code_gen"),
    "human_preference": _simple("genrm", server="genrm_compare"),
    "swe_agentless": _simple("swerl_gen"),
}


def served(recipe: Recipe, domain: str) -> dict[str, Served | None]:
    """Each environment that a domain's prompts may name → NeMo Gym's environment for its rows; None if it has none."""
    sources = [source for source in recipe.curation.sources.values() if source.domain == domain and source.rl]
    servers: dict[str, Served | None] = {}
    for source in sources:
        name = source.rows_name
        server = SERVED.get(name)
        servers[name] = None if server is not None and source.generator and not server.generated else server
    return servers


def write_prompts(recipe: Recipe, name: str, node: OnPolicyNode, layout: Layout, path: Path) -> int:
    """Write the prompts in the order in which the node draws them, refills included; NeMo-RL reads them in order.
    Returns the number of prompts."""
    from cascade.training.prompts import Cursor, PromptSource, load_prompts  # imports torch

    prompts = {domain: load_prompts(layout.prompts(domain), domain) for domain in node.mix}
    source = PromptSource(prompts, node.mix, recipe.seed, name, cursor=Cursor())
    refills = node.max_refills if isinstance(node, RLNode) and node.dynamic_filtering else 0
    batches = node.steps * (1 + refills)
    with open_atomic(path) as file:
        for _ in range(batches):
            for draw in source.draw_step(node.prompts):
                row = draw.prompt.row
                server = SERVED.get(draw.prompt.environment)
                if "agent_ref" not in row and server is not None:
                    row["agent_ref"] = {"type": "responses_api_agents", "name": server.agent}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return batches * node.prompts
