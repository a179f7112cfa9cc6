"""The executor against full BPTT and torch.utils.checkpoint, in one run."""
