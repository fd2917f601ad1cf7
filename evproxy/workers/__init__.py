"""
Worker processes: several processes with an event loop each carry the sessions of one proxy.
"""
