"""
The command ``evproxy top``: a proxy live in a terminal.
"""
