"""Tracking: metrics are written to a local journal, and published from there to MLflow whenever it is reachable."""

from cascade.tracking.background import following, live, publish
from cascade.tracking.journal import EVALUATED, Journal, decision_journal, evaluation_journal

__all__ = ["EVALUATED", "Journal", "decision_journal", "evaluation_journal", "following", "live", "publish"]
