"""What a step sees besides its arguments, and how it is found again when the step runs a second time."""
