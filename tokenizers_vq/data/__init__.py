"""Data sets: plain torch datasets whose items are signals in [-1, 1]."""
