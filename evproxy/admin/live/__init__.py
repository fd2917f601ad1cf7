"""
What viewers see live: traffic, its last 15 minutes, and the servers and sessions that they ask for.
"""
