"""
The admin interface of all workers: the supervisor serves it, and asks the workers.
"""
