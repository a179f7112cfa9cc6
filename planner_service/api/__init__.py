"""The HTTP service. Nothing is imported here: `problems` must load without a web framework."""
