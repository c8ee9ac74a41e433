"""Protocols, runs, classic codecs, results and pages: ``tvq eval`` and what its numbers need."""
