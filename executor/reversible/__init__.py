"""Reversible recurrent layers: hidden states that need not be stored."""
