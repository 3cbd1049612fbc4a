"""Saying a diagnosis: one document, one file per format; pure."""
