"""The one exception type that reaches a user."""


class TsbenchError(Exception):
    """Bad input or an unmet requirement, phrased for the user.

    The message is one line that names the cause and the remedy. The command line prints it and exits
    with status 2; no traceback is shown without ``--debug``.
    """
