"""What the compiler learns from: everything that is measured here but memory, briefly, on aioxide.

`make bench` and `make wheels` build with `PROFILE=pgo`: an extension that counts how often each of its branches is
taken runs this, and is then built again with what was counted. Code that runs often is kept together, and what handles
errors out of its way.
"""

import importlib.util
import sys

import measure

BRIEF = measure.Settings(scale=0.1, repeats=2, seconds=0.2)

for name, function in measure.registry().items():
    package = measure.needed_package(name)
    if package and not importlib.util.find_spec(package):
        print(f"not learnt, as it is not installed: {package}")
    elif not name.startswith("memory/"):
        try:
            function("aioxide", BRIEF)
        except measure.Failed as reason:
            print(f"once more, as the machine may have been busy: {name}: {reason}", file=sys.stderr)
            function("aioxide", BRIEF)
