"""Kubernetes objects: the Job of a launch, and what an admission webhook adds to Jobs. Pure."""
