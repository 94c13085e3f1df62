"""How much the tests do."""

import os


def thorough(quick, full):
    """`full` in a thorough run (ELMAN_THOROUGH=1), `quick` in an ordinary one."""
    return full if os.environ.get("ELMAN_THOROUGH") else quick
