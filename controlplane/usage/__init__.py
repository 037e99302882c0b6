"""What was used, by whom and for how long."""
