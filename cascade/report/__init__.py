"""What came out: the result table for the terminal, and one HTML page with tables and figures."""

from cascade.report.page import build_report
from cascade.report.table import result_table

__all__ = ["build_report", "result_table"]
