"""What the compiler learns from: everything whose speed is measured here, briefly, on aioxide.

`make PROFILE=pgo` builds an extension that counts how often each of its branches is taken, runs this with it, and
builds again with what was counted: code that runs often is kept together, and what handles errors out of its way.
"""

import importlib.util
import sys

import measure

BRIEF = measure.Settings(scale=0.1, repeats=2, seconds=0.2)

for name, function in measure.registry().items():
    package = measure.needed_package(name)
    if name.startswith("memory/") or (package and not importlib.util.find_spec(package)):
        continue
    try:
        function("aioxide", BRIEF)
    except measure.Failed as reason:
        print(f"not learnt: {name}: {reason}", file=sys.stderr)
