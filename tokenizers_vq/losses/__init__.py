"""Training objectives: named terms times weights."""
