"""What an operator sees of the service: logs, figures, spans, and a name for every request."""
