"""Discriminators for adversarial training, one file each."""
