"""The physical cloud: zones, physical networks, pods, clusters, hosts, address ranges and capacity."""
