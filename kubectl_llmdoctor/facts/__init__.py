"""Typed, frozen views of a snapshot; pure, lazy, and the only thing that checks see."""
