"""How fast is hf_sched?"""
