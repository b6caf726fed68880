"""``make bench``: our poller and the usual way of waiting, side by side, on this machine."""
