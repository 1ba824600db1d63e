"""The one error a stage raises on purpose."""


class StageError(Exception):
    """What went wrong, where (file, row or key), and what to do about it.

    The message is the whole story: the stage's entry point prints it alone, without a traceback.
    """
