"""tightfit's executor: train unrolled PyTorch models inside a byte budget, exactly."""
