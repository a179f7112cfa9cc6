"""One attempt at a job: a supervisor that speaks with the service, and a trainer in its own process group."""
