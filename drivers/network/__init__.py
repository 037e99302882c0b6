"""Network service providers: the virtual router and hardware devices."""
