"""Measurements of reconstructions and codes, one file each."""
