"""Prefect tasks, thin: each runs one DVC stage as a process, or puts something on the run's page."""
