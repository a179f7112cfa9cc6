"""Placement at a scheduler's scale."""
