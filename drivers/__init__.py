"""Drivers: how each kind of router, device and host is brought to what is wanted of it.

What must stay true: ``plan`` and ``render`` are pure; drivers know facts, never rows; nothing here imports the control
plane; a driver is reached through :mod:`drivers.registry` only.
"""
