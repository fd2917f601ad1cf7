"""
Metrics: plain counters that the events of a proxy add to, and the families that are made of them.
"""
