"""The exception for mistakes that a user can correct."""


class UserError(ValueError):
    """A setting, a checkpoint or an input is wrong; the message names the field, its value and the
    remedy. It is shown to the user as it is.

    Any other ValueError comes from a library or is a bug, and is reported with its traceback.
    """
