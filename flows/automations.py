"""Prefect's automations for this project's runs, made on the server that PREFECT_API_URL names:

    python -m flows.automations [--webhook URL]

Run again, it updates them. They cannot be in `prefect.yaml`, because triggers of deployments only start runs.
"""

import argparse
import asyncio
from datetime import timedelta
from uuid import UUID

from prefect.automations import Automation, CallWebhook, ChangeFlowRunState, EventTrigger, Posture
from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.types import SecretDict
from pydantic import SecretStr

SILENCE = timedelta(seconds=90)
"""Three of Prefect's heartbeats, whose shortest interval is 30 s (deployments set it: prefect.yaml)."""

RESTARTS = 3
"""How often a crashed run is started again."""

LOST = "no sign of life for 90 seconds: its worker or machine is gone"

WEBHOOK = "cascade"
"""Name of the block with the webhook's address, which may be a secret."""

MESSAGE = (
    '{{ {"text": flow.name ~ " " ~ flow_run.name ~ ": " ~ flow_run.state.name ~ ". " '
    '~ (flow_run.state.message or "") ~ " " ~ (flow_run|ui_url or "")} | tojson }}'
)
"""The body that Slack, Mattermost and many others accept: {"text": …}."""

_EVERY_RUN: dict[str, str | list[str]] = {"prefect.resource.id": "prefect.flow-run.*"}


def automations(webhook: UUID | None = None) -> list[Automation]:
    """`webhook`: id of the block to call when a run failed, crashed or waits for approval; None: no call."""
    result = [
        Automation(
            name="cascade: a run that is lost has crashed",
            description="A run that has sent a heartbeat, and then neither another nor its end, is marked as Crashed.",
            trigger=EventTrigger(
                after={"prefect.flow-run.heartbeat"},
                # Any event of the run, because states have custom names, such as `Gate failed`.
                expect={"prefect.flow-run.*"},
                match=_EVERY_RUN,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                within=SILENCE,
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=LOST, force=False)],
        ),
        Automation(
            name="cascade: a crashed run goes on",
            description=f"It is scheduled again, up to {RESTARTS} times, for any worker of its pool: what it had built "
            "is left alone, and the node that was under way resumes at its last saved step. Runs of single nodes "
            "are left to the run that they belong to.",
            trigger=EventTrigger(
                expect={"prefect.flow-run.Crashed"},
                # Without 0: a run that could not be started would not start the next time either.
                match={**_EVERY_RUN, "prefect.run-count": [str(count) for count in range(1, RESTARTS + 1)]},
                match_related={"prefect.resource.role": "flow", "prefect.resource.name": "!node"},
                posture=Posture.Reactive,
                for_each={"prefect.resource.id"},
            ),
            actions=[
                ChangeFlowRunState(
                    state=StateType.SCHEDULED, name="AwaitingRetry", message="it crashed and goes on", force=False
                )
            ],
        ),
    ]
    if webhook is not None:
        result.append(
            Automation(
                name="cascade: tell of a run that needs someone",
                description="Calls the webhook when a run failed, crashed or waits for approval.",
                trigger=EventTrigger(
                    expect={"prefect.flow-run.*"},
                    match={**_EVERY_RUN, "prefect.state-type": ["FAILED", "CRASHED", "PAUSED"]},
                    posture=Posture.Reactive,
                    for_each={"prefect.resource.id"},
                ),
                actions=[CallWebhook(block_document_id=webhook, payload=MESSAGE)],
            )
        )
    return result


async def make(url: str | None) -> list[str]:
    """Create or update the automations, with a call of `url` where there is one. Returns their names."""
    block = None
    if url is not None:
        webhook = Webhook(url=SecretStr(url), headers=SecretDict({"Content-Type": "application/json"}))
        block = await webhook.save(WEBHOOK, overwrite=True)
    definitions = automations(block)
    async with get_client() as prefect:
        for automation in definitions:
            if existing := await prefect.read_automations_by_name(automation.name):
                automation.id = existing[0].id
                await automation.aupdate()
            else:
                await automation.acreate()
    return [automation.name for automation in definitions]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make this project's automations on Prefect's server.")
    parser.add_argument("--webhook", metavar="URL", help="called when a run failed, crashed or waits for approval")
    for name in asyncio.run(make(parser.parse_args().webhook)):
        print(name)


if __name__ == "__main__":
    main()
