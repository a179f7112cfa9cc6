"""The agent of a node: offers its memory to the service and runs the jobs that it is given."""
