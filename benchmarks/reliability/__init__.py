"""Do interrupted and distributed runs train exactly as planned?"""
