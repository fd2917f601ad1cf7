"""
The admin interface: operators and programs ask about a proxy, and change it while it runs.
"""
