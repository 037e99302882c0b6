"""Hypervisors: kinds of host."""
