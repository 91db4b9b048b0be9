"""The one exception that means *the user can mend this*.

The command line prints its sentence and exits with code 2; everything else that escapes is a bug of ours
(exit code 1). A message says what was given, what is allowed and what to type next.
"""


class InputError(ValueError):
    """Something the caller gave cannot be used; the message is one clear sentence."""
