"""Virtual machines: what tenants run, where it is placed, and how it comes and goes."""
