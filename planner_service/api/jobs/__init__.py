"""Jobs beside the requests: handed to engines, looked after, and told of as they happen."""
