"""A result or a whole run as HTML that needs nothing else."""

from pytest_reflex.report.html.pages import anchors, changes_view, page, result_html, shortened

__all__ = ["anchors", "changes_view", "page", "result_html", "shortened"]
