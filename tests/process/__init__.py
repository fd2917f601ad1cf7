"""The process that twistd and the shell run."""
