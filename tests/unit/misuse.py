"""Calls everything of aioxide with everything that is wrong; run by test_bad_input.py.

    python misuse.py functions|classes|loop|transports

Exceptions are what is asked for.  A crash, a Rust panic or a SystemError (by
which the interpreter says that native code has broken its rules) is not.
"""

import asyncio
import contextvars
import faulthandler
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import traceback
import warnings

import aioxide

# They would replace what is under test, or leave threads and look-ups behind.
LEFT_OUT = {"install", "uninstall", "getaddrinfo", "getnameinfo", "to_thread", "run_in_executor"}
# Left out too: what a subclass of object has anyway.
LEFT_OUT |= {"__class__", "__subclasshook__", "__init_subclass__", "__sizeof__", "__dir__"}
PATIENCE = 1.0  # seconds until a call that waits, as it may, is interrupted
BAD_ENDS = ("PanicException", "SystemError")


class Waiting(Exception):
    """Raised in a call that takes too long."""


class Hostile:
    """Raises whatever it is asked."""

    def __getattr__(self, name):
        raise ZeroDivisionError(name)

    def __eq__(self, other):
        raise ZeroDivisionError

    def __hash__(self):
        raise ZeroDivisionError

    def __bool__(self):
        raise ZeroDivisionError

    def __index__(self):
        raise ZeroDivisionError

    def __float__(self):
        raise ZeroDivisionError

    def __iter__(self):
        raise ZeroDivisionError

    def __await__(self):
        raise ZeroDivisionError


def values():
    """Fresh ones for each call: some are used up."""
    done = asyncio.Future(loop=LOOP)
    done.cancel()
    return [
        None,
        0,
        -1,
        2**70,
        0.5,
        float("nan"),
        float("-inf"),
        True,
        "text",
        "\udc80",
        b"bytes",
        bytearray(3),
        (),
        [None],
        {},
        {"loop": 1},
        object(),
        object,
        ValueError,
        ValueError(1),
        StopIteration(1),
        len,
        lambda *args, **kwargs: None,
        contextvars.copy_context(),
        done,
        Hostile(),
        iter(()),
        memoryview(b"view"),
    ]


class Misuse:
    def __init__(self):
        self.calls = 0
        self.returned = 0

    def call(self, function, *args, **kwargs):
        self.calls += 1
        try:
            signal.setitimer(signal.ITIMER_REAL, PATIENCE)
            result = function(*args, **kwargs)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if type(error).__name__ in BAD_ENDS:
                sys.__stderr__.write(f"{function!r} with {args!r} {kwargs!r}: {error!r}\n")
                traceback.print_exc(file=sys.__stderr__)
                os._exit(1)
        else:
            self.returned += 1
            if inspect.iscoroutine(result) or hasattr(result, "cr_frame"):
                result.close()
        finally:
            asyncio._set_running_loop(None)

    def try_all(self, make):
        """Call what `make` returns, anew for each call, with wrong numbers of wrong things."""
        self.call(make())
        for value in values():
            for count in (1, 2, 3, 7):
                self.call(make(), *([value] * count))
            self.call(make(), unknown=value)
            self.call(make(), value, loop=value)
            self.call(make(), value, context=value)
        for keyword in keywords_of(make()):
            for value in values():
                self.call(make(), **{keyword: value})


def keywords_of(function):
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]


def ours():
    """What aioxide does itself, by name."""
    for name in sorted(set(dir(aioxide)) - LEFT_OUT):
        thing = getattr(aioxide, name)
        module = str(getattr(thing, "__module__", ""))
        if callable(thing) and module.partition(".")[0] == "aioxide" and not name.startswith("__"):
            yield name, thing


async def forever():
    await LOOP.create_future()


def instances():
    """How to make an object of each class of aioxide that has no use for arguments."""
    yield lambda: aioxide.Future(loop=LOOP)
    yield lambda: aioxide.Task(forever(), loop=LOOP)
    yield lambda: LOOP.call_soon(len)
    yield lambda: LOOP.call_later(60, len)
    yield aioxide.Runner
    for _, thing in ours():
        if isinstance(thing, type) and not issubclass(thing, (asyncio.AbstractEventLoop, aioxide.Future)):
            try:
                thing()
            except TypeError:
                continue
            yield thing


def misuse_members(misuse, make):
    """Every method of an object, bound and with a wrong self, and every attribute set to wrong things."""
    kind = type(make())
    for name in dir(kind):
        if name in LEFT_OUT:
            continue
        if callable(getattr(kind, name, None)):
            misuse.try_all(lambda name=name: getattr(make(), name))
            for value in values():
                misuse.call(getattr(kind, name), value)
        else:
            for value in values():
                misuse.call(setattr, make(), name, value)
            misuse.call(delattr, make(), name)


def misuse_functions(misuse):
    for _, thing in ours():
        misuse.try_all(lambda thing=thing: thing)


def misuse_classes(misuse):
    for make in instances():
        misuse_members(misuse, make)


def misuse_loop(misuse):
    loops = []

    def make():
        while len(loops) > 3:
            misuse.call(loops.pop(0).close)
        loops.append(aioxide.new_event_loop())
        return loops[-1]

    misuse_members(misuse, make)
    closed = aioxide.new_event_loop()
    closed.close()
    misuse_members(misuse, lambda: closed)


def misuse_transports(misuse):
    async def connect():
        server = await LOOP.create_server(asyncio.Protocol, "127.0.0.1", 0)
        transport, _ = await LOOP.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        return server, transport

    server, transport = LOOP.run_until_complete(connect())
    for thing in (transport, server):
        for name in sorted(dir(type(thing))):
            if not name.startswith("__") and callable(getattr(thing, name)):
                misuse.try_all(lambda thing=thing, name=name: getattr(thing, name))
    for name in ("write", "writelines", "close", "abort", "is_closing", "get_write_buffer_size"):
        misuse.try_all(lambda name=name: getattr(transport, name))
    LOOP.run_until_complete(asyncio.sleep(0))


def interrupt(number, frame):
    raise Waiting


if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.dump_traceback_later(150, exit=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    threading.excepthook = sys.unraisablehook = lambda arguments: None
    sys.stderr = open(os.devnull, "w")  # what a panic says goes past it
    signal.signal(signal.SIGALRM, interrupt)
    LOOP = aioxide.new_event_loop()
    misuse = Misuse()
    globals()[f"misuse_{sys.argv[1]}"](misuse)
    gc.collect()
    sys.stdout.write(f"survived {misuse.calls} calls, {misuse.returned} of which returned\n")
    sys.stdout.flush()
    os._exit(0)
