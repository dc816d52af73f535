"""Compares the learning rates of a finished or interrupted run with the plan: `hf_sched.audit.audit("runs/sft")`."""

from hf_sched.audit.report import AuditReport, audit

__all__ = ["AuditReport", "audit"]
