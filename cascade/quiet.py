"""What every command sets before it imports anything. By itself, because `cascade --help` is to be quick."""

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""Nobody is told what runs here. MLflow's own jobs (judges, optimizers of prompts) are not used, and would keep seven
processes."""
