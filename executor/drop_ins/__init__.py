"""What the drop-ins of `executor.modules` are made of: torch's recurrent layers as functions of segments."""
