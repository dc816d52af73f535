"""Which schedule gives the best model?"""
