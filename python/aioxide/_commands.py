"""How the commands that look at something (`aioxide ps`, `aioxide doctor` and so on) read their words."""

import argparse
import math
from typing import NoReturn

from aioxide._usage import refuse


class Parser(argparse.ArgumentParser):
    """argparse without the summary in front of each complaint, and without guesses at half an option."""

    def __init__(self, command: str, description: str | None) -> None:
        super().__init__(prog=f"aioxide {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave."""
        refuse(message, self.prog)


def process(word: str) -> int:
    """The number of a process, from a word of the command line."""
    if not (word.isascii() and word.isdigit() and 0 < len(word) < 20 and int(word) > 0):
        raise argparse.ArgumentTypeError(f"{word!r} is not the number of a process")
    return int(word)


def seconds(word: str) -> float:
    """A length of time, from a word of the command line."""
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{word!r} is not a positive number of seconds")
    return value
