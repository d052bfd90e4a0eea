"""What the command line answers to words that it can make nothing of: one line, and exit status 2."""

import sys
from typing import NoReturn


def refuse(reason: str, command: str = "aioxide") -> NoReturn:
    """End the process for a reason that its user can do something about."""
    sys.stderr.write(one_line(f"{command}: {reason} (see {command} --help)") + "\n")
    sys.exit(2)


def one_line(text: str) -> str:
    """Words of the command line may hold anything; what is shown stays one line."""
    return "".join(character if character.isprintable() else "?" for character in text)
