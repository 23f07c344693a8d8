"""Proving a lab's isolation: probes from inside the guests, a control for each denial, verdicts, reports."""
