"""The outside world as a `Snapshot`: the only folder of the program that reads files or talks to a cluster."""
