"""Makes live objects of CPython's _asyncio for layout.rs to compare its idea of their memory with."""

import asyncio  # before _asyncio: see stock_types()
import contextvars
from _asyncio import Future, Task


class Loop:
    def get_debug(self):
        return False

    def call_soon(self, *args, context=None):
        pass


async def nothing():
    pass


def fail():
    try:
        raise error
    except ValueError as exc:
        return exc


event_loop, mark, context, error = Loop(), print, contextvars.copy_context(), ValueError()

pending = Future(loop=event_loop)
pending.add_done_callback(mark, context=context)
pending.add_done_callback(mark, context=context)
pending._cancel_message = mark
pending._asyncio_future_blocking = True

done = Future(loop=event_loop)
done.set_result(mark)

failed = Future(loop=event_loop)
failed.set_exception(fail())

cancelled = Future(loop=event_loop)
cancelled.cancel()

coro, name = nothing(), "probe of aioxide"
task = Task(coro, loop=event_loop, name=name, context=context)
task._log_destroy_pending = False
task.cancel()
task.cancel()
if hasattr(asyncio, "future_add_to_awaited_by"):
    asyncio.future_add_to_awaited_by(pending, task)
coro.close()
