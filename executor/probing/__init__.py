"""How the bytes and seconds of a loop's stages are measured before it is planned, in a few segments of it."""
