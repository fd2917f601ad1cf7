"""
The command ``evproxy ctl``: a client of the admin interface, for people and for scripts.
"""
