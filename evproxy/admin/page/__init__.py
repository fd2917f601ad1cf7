"""
The status page: plain HTML, CSS and JavaScript, and how they are served.
"""
