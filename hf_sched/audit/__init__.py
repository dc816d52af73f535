"""What a run did, against what it was to do: `hf_sched.audit.audit("runs/sft")`."""

from hf_sched.audit.report import AuditReport, Comparison, audit

__all__ = ["AuditReport", "Comparison", "audit"]
