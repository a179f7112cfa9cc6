"""The planning service as a worker sees it: a link to one that runs, or a child process of its own."""
