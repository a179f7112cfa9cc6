"""How true projections become: from bounds to what was measured, over twenty jobs."""
