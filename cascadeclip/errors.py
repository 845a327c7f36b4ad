"""The one error users see when something they gave does not fit."""


class InputError(ValueError):
    """Bad input: the message says what was wrong, where, and what to do."""
