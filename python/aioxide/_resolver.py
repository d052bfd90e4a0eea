"""Threads for host names: a pool of its own, so that slow names do not hold up the default executor.

At most `MOST_AWAITED` lookups that somebody waits for run at a time.  One that was
cancelled cannot be stopped, but it no longer counts: another thread takes its place,
up to `MOST_THREADS` in all.  So that many names may hang, their waiters gone, before
other lookups have to wait for the system to give up on one.  The threads are daemons:
a name that hangs does not keep a program from ending.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

MOST_AWAITED = 8
MOST_THREADS = 64

# How long a thread without work waits for some, in seconds.
PATIENCE = 10.0


class Lookup(Future[Any]):
    """One call, in a thread of the pool."""

    def __init__(self, pool: "Resolver", call: Callable[..., Any], args: tuple[Any, ...]) -> None:
        super().__init__()
        self.pool, self.call, self.args, self.is_abandoned = pool, call, args, False

    def cancel(self) -> bool:
        if super().cancel():
            return True
        self.pool.abandon(self)
        return False

    def run(self) -> None:
        if not self.set_running_or_notify_cancel():
            return
        try:
            result = self.call(*self.args)
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(result)


class Resolver:
    """The pool."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Lookup] = deque()
        self._threads = self._idle = self._abandoned = 0

    def submit(self, call: Callable[..., Any], *args: Any) -> Lookup:
        """Have `call(*args)` run."""
        lookup = Lookup(self, call, args)
        with self._changed:
            self._waiting.append(lookup)
            try:
                self._make_room()
            except RuntimeError:  # no thread can be started
                if not self._threads:
                    self._waiting.remove(lookup)
                    raise
        return lookup

    def abandon(self, lookup: Lookup) -> None:
        """Nobody waits for a lookup that runs: another may run beside it."""
        with self._changed:
            if lookup.running() and not lookup.is_abandoned:
                lookup.is_abandoned = True
                self._abandoned += 1
                self._make_room()

    def idle(self) -> int:
        """How many threads wait for something to look up."""
        with self._changed:
            return max(self._idle - len(self._waiting), 0)

    def _make_room(self) -> None:
        """See to it that somebody takes what waits, if that may run."""
        if self._idle >= len(self._waiting):
            self._changed.notify()
        elif self._threads < MOST_THREADS and self._threads - self._abandoned < MOST_AWAITED:
            threading.Thread(target=self._work, name="aioxide-resolver", daemon=True).start()
            self._threads += 1  # the thread takes the lock before it looks

    def _work(self) -> None:
        while lookup := self._take():
            lookup.run()
            with self._changed:
                self._abandoned -= lookup.is_abandoned
                lookup.is_abandoned = True  # over: from now on there is nothing to abandon
            del lookup

    def _take(self) -> Lookup | None:
        """The next lookup; nothing when the thread is not needed any more."""
        with self._changed:
            while self._threads - self._abandoned <= MOST_AWAITED:
                if self._waiting:
                    return self._waiting.popleft()
                self._idle += 1
                is_news = self._changed.wait(PATIENCE)
                self._idle -= 1
                if not is_news and not self._waiting:
                    break
            self._threads -= 1
            return None


_pool = Resolver()


def submit(call: Callable[..., Any], *args: Any) -> Lookup:
    """Have `call(*args)` run in the process's pool."""
    return _pool.submit(call, *args)


def idle() -> int:
    """How many of the pool's threads have nothing to do."""
    return _pool.idle()


def _after_fork() -> None:
    """A child has none of its parent's threads."""
    global _pool
    _pool = Resolver()


os.register_at_fork(after_in_child=_after_fork)
