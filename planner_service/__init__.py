"""tightfit's planner: memory budgets in, exact execution policies out."""
