"""The errors that end the program; each class is one exit code, each message one line."""


class LlmdoctorError(Exception):
    """Ends the program with `exit_code`; the message says what is wrong and what to do."""

    exit_code = 1


class UsageError(LlmdoctorError):
    """Wrong usage, or nothing at all could be read from the input."""

    exit_code = 2


class AccessError(LlmdoctorError):
    """Could not look: the cluster is unreachable, forbids it, or has no such object."""

    exit_code = 3
    #: whether asking again later may help
    passing = False
