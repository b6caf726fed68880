"""``make bench``: this provider and the usual one, side by side on this machine."""
