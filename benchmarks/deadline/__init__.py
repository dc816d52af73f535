"""How close to its deadline does a run end?"""
