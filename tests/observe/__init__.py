"""Who is told what happens: the logs."""
