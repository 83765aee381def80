"""Drivers that load the same data into each peer, and measure what it took."""
