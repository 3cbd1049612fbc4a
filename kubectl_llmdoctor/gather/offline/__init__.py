"""What `gather.files` is made of: bytes -> documents -> objects, snapshots, dumps."""
