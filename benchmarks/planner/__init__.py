"""How fast the planner is, against the tools that people use today."""
