"""What was measured: first into a local journal, from there to MLflow, whenever it can be reached."""

from cascade.tracking.background import live, publish
from cascade.tracking.journal import EVALUATED, Journal, decision_journal, evaluation_journal

__all__ = ["EVALUATED", "Journal", "decision_journal", "evaluation_journal", "live", "publish"]
