"""Training on Lightning; the only room that imports it."""
