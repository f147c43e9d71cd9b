"""The one exception that users meet."""

# What reading a file may raise, whatever it holds: nesting a RecursionError, a number of 400 digits an OverflowError.
DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)


class ParityError(Exception):
    """A mistake in the call or in the environment, never a divergence.

    Its text is one line that names the file or option and says what to do. The command line prints
    it without a traceback and exits with status 2. Whatever the user need not read at first (the
    worker's own traceback, say) goes into ``detail``, shown below that line.
    """

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class EngineError(ParityError):
    """An engine in another interpreter failed at what it was asked for: it raised, died or did not answer."""


class NoTruthError(ParityError):
    """What the legacy engine computes holds a NaN or an infinity: nothing can be compared with that."""
