"""What a recipe will do, before anything is loaded: `hf_sched.plan.plan(RunConfig.read("run.yaml"))`."""

from hf_sched.plan.make import GRPOPlan, Plan, PlannedPhase, plan

__all__ = ["GRPOPlan", "Plan", "PlannedPhase", "plan"]
