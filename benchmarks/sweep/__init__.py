"""Does `hf-sched sweep` find the best peak for a third of the steps?"""
