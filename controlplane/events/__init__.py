"""What happened: events, and the jobs that made it happen."""
