"""A benchmark's results as a page that people look at; nothing below knows this room."""

from cfr_fast.report.write import Report, write_report

__all__ = ["Report", "write_report"]
