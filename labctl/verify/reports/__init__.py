"""A report as people and programs want it: JSON, the terminal, JUnit's XML, one page of HTML.

``to_json`` makes the document (``schemas/report.schema.json``); every other form is made of the document alone.
"""

from labctl.verify.reports.changes import Changes, changes
from labctl.verify.reports.document import Document, digest, exit_code, to_json
from labctl.verify.reports.junit import junit
from labctl.verify.reports.page import page
from labctl.verify.reports.terminal import show

__all__ = ["Changes", "Document", "changes", "digest", "exit_code", "junit", "page", "show", "to_json"]
