"""Prometheus, or what speaks its language: found in the cluster, asked a few bounded questions about some pods."""
