"""How fast do the recipes train on a GPU, and what do they learn?"""
