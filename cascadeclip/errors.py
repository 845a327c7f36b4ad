"""The errors users see when something they gave does not fit."""


class InputError(ValueError):
    """Bad input: the message says what was wrong, where, and what to do."""


class DamagedFile(InputError):
    """A file that is cut short, of another kind, or at odds with itself."""
