"""A loop as stages: the inputs, states, outputs and parameters of each, and its live tape."""
