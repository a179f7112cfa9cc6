"""Plans and profiles as answers: made once, off the event loop, and kept ready."""
