"""Private training without clipping. Nothing is here yet: no part of the lab claims privacy so far."""
