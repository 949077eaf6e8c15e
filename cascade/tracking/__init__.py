"""What was measured: first into a local journal, from there to MLflow, whenever it can be reached."""

from cascade.tracking.background import following, live, publish
from cascade.tracking.journal import EVALUATED, Journal, decision_journal, evaluation_journal

__all__ = ["EVALUATED", "Journal", "decision_journal", "evaluation_journal", "following", "live", "publish"]
