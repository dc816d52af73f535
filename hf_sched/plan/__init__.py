"""What a run will do, before anything is loaded: `hf_sched.plan.plan(TrainingConfig.read("run.yaml"))`."""

from hf_sched.plan.plan import Plan, plan

__all__ = ["Plan", "plan"]
