"""Offerings: what admins make choosable for tenants."""
