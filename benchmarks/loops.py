"""The event loops that are compared, and how each is put to work."""

import asyncio
import importlib
import importlib.util

# Loops other than these two are taken if they are installed.  name: (module, what makes a loop)
OTHERS = {
    "uvloop": ("uvloop", "new_event_loop"),
    "rloop": ("rloop", "new_event_loop"),
    "rsloop": ("rsloop", "new_event_loop"),
    "zuvloop": ("zuvloop", "new_event_loop"),
}
# A server in C, which says where the limit is: not a loop, but measured by the same client.
C = "C"
NAMES = ("asyncio", *OTHERS, "aioxide")


def installed():
    """Those that can be measured here."""
    return [name for name in NAMES if name == "asyncio" or importlib.util.find_spec(name)]


def use(name):
    """Puts an implementation to work in this process; returns what makes its loops."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    if name == "aioxide":
        import aioxide

        aioxide.install()
        return aioxide.new_event_loop
    module, attribute = OTHERS[name]
    return getattr(importlib.import_module(module), attribute)


def smallest_program(name):
    """A program that starts a loop of this kind and ends, as text."""
    if name == "asyncio":
        return "import asyncio\nasync def main(): pass\nasyncio.run(main())"
    if name == "aioxide":
        return "import asyncio, aioxide\naioxide.install()\nasync def main(): pass\nasyncio.run(main())"
    module, attribute = OTHERS[name]
    return (
        f"import asyncio, {module}\nasync def main(): pass\n"
        f"with asyncio.Runner(loop_factory={module}.{attribute}) as runner: runner.run(main())"
    )


def version(name):
    if name in ("asyncio", C):
        return ""
    import importlib.metadata

    number = importlib.metadata.version(name)
    if name != "aioxide":
        return number
    from aioxide import _core

    return f"{number} ({_core._profile()})"
