"""The symptoms that follow by themselves from whatever ends a server, for a finding's `explains`."""

#: It never served.
FAILED_START = ("crash-loop", "not-ready", "engine-init-failed", "pod-failed")

#: A container ended, whatever runs in it; a rollout waits for it.
CRASHED = ("crash-loop", "not-ready", "pod-failed", "rollout-stuck")
