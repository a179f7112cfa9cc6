"""The rules that a step must keep so that it may run twice, and the look that finds out whether it does."""
