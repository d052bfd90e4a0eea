"""asyncio's names of event loops and servers, where aioxide is installed: each is one for asyncio's class and ours."""

from typing import Any

from aioxide import _core, _stdlib
from aioxide._loop import EventLoop, is_special
from aioxide._one_name import OneNameForTwo, Pair


def _note_override(name: str) -> None:
    running = _stdlib.get_running_loop_or_none()
    if isinstance(running, EventLoop):
        running._note_override(name)  # the others see it when they run


def _loop_with(selector: object = None) -> Any:
    return _stdlib.SelectorEventLoop(selector) if is_special(selector) else EventLoop(selector)


_LOOPS = Pair(EventLoop, theirs=_stdlib.SelectorEventLoop, root=_stdlib.BaseEventLoop, on_put=_note_override)
_SERVERS = Pair(_core.Server, theirs=_stdlib.Server, root=_stdlib.Server, on_put=lambda name: None)


class SelectorEventLoop(
    EventLoop, metaclass=OneNameForTwo, pair=_LOOPS, theirs=_stdlib.SelectorEventLoop, make=_loop_with
):
    """What `asyncio.SelectorEventLoop` and `asyncio.EventLoop` are when aioxide is installed.

    A call makes an `aioxide.EventLoop`, or a loop of asyncio's where the program
    gives a selector of its own.  A subclass is one of asyncio's loop, on whose
    inside it may build (`_selector`, `_run_once`, ...).  Both are instances.
    """

    __module__ = "aioxide"


class BaseEventLoop(
    EventLoop, metaclass=OneNameForTwo, pair=_LOOPS, theirs=_stdlib.BaseEventLoop, make=_stdlib.BaseEventLoop
):
    """What `asyncio.BaseEventLoop` is when aioxide is installed.

    To call it and to subclass it makes what it makes of asyncio's.  Our loops
    are instances, too, and what a program puts here they have as well.
    """

    __module__ = "aioxide"


class BaseSelectorEventLoop(
    EventLoop,
    metaclass=OneNameForTwo,
    pair=_LOOPS,
    theirs=_stdlib.BaseSelectorEventLoop,
    make=_stdlib.BaseSelectorEventLoop,
):
    """As `BaseEventLoop`, in `asyncio.selector_events`."""

    __module__ = "asyncio.selector_events"


class Server(_stdlib.Server, metaclass=OneNameForTwo, pair=_SERVERS, theirs=_stdlib.Server, make=_stdlib.Server):
    """What `asyncio.Server` is when aioxide is installed.

    Our loops make servers of their own, which are instances.  A call makes one of asyncio's, as a call of a subclass
    does; our loops serve with it as well.
    """

    __module__ = "aioxide"
