"""Small asyncio programs as data, and their interpreter.

A program is a list of tasks, a task a list of steps; hypothesis makes and shrinks them (`programs`). `run` executes
one on any implementation of asyncio, given as a namespace with asyncio's names, and returns the trace: what happened,
to whom, and when by the loop's clock. Two right implementations give equal traces.
"""

import dataclasses
import sys
import types
from collections.abc import Awaitable, Callable
from typing import Any

from hypothesis import strategies as st

RESOURCES = 2  # of each kind: enough for contention, few enough to meet


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing a task does: a verb, which resource or task it is about, a number, and the steps inside it."""

    verb: str
    which: int = 0
    number: int = 0
    inner: tuple["Step", ...] = ()


@dataclasses.dataclass(frozen=True)
class Program:
    """The tasks of a program, whether they are started eagerly, and which queues, permits and parties it has."""

    tasks: tuple[tuple[Step, ...], ...]
    eager: bool = False
    queues: tuple[tuple[str, int], ...] = (("Queue", 1), ("PriorityQueue", 0))
    permits: tuple[int, ...] = (1, 2)
    parties: tuple[int, ...] = (2, 2)


LEAVES = (
    "yield", "sleep", "acquire", "release", "event_wait", "event_set", "event_clear", "sem_acquire", "sem_release",
    "put", "get", "put_nowait", "get_nowait", "task_done", "join", "shutdown", "notify", "notify_all", "cancel",
    "cancel_msg", "uncancel", "raise", "future_set", "future_fail", "future_cancel", "future_wait", "await_task",
    "barrier", "barrier_reset", "barrier_abort", "spawn_detached", "call_soon", "call_later", "wait_for_primitive",
    "task_of_primitive", "gather_primitives", "cond_wait_for", "look", "reschedule", "group_cancel", "shield_primitive",
    "abandon",
)  # fmt: skip
NESTS = (
    "with_lock", "with_sem", "with_cond", "cond_wait", "timeout", "wait_for", "group", "gather", "gather_exceptions",
    "shield", "wait_first", "wait_all", "wait_exception", "wait_timeout", "as_completed", "try", "swallow", "finally",
    "timeout_at", "timeout_unlimited", "group_failing", "group_of_eager", "group_in_group", "with_barrier",
    "spawn_eager", "as_completed_async", "factory", "notifying", "forever", "retry",
)  # fmt: skip


def steps(depth: int = 2) -> st.SearchStrategy[tuple[Step, ...]]:
    """Lists of steps, nested at most `depth` deep."""
    numbers = st.integers(0, 5)
    leaf = st.builds(Step, st.sampled_from(LEAVES), st.integers(0, RESOURCES - 1), numbers)
    if depth == 0:
        return st.lists(leaf, min_size=1, max_size=6).map(tuple)
    nest = st.builds(Step, st.sampled_from(NESTS), st.integers(0, RESOURCES - 1), numbers, steps(depth - 1))
    return st.lists(st.one_of(leaf, leaf, nest), min_size=2, max_size=8).map(tuple)


def programs() -> st.SearchStrategy[Program]:
    """Whole programs."""
    kind = st.tuples(st.sampled_from(["Queue", "LifoQueue", "PriorityQueue"]), st.integers(0, 2))
    return st.builds(
        Program,
        st.lists(steps(), min_size=2, max_size=5).map(tuple),
        st.booleans(),
        st.tuples(kind, kind),
        st.tuples(st.integers(0, 2), st.integers(0, 2)),
        st.tuples(st.integers(1, 3), st.integers(1, 3)),
    )


class Failure(Exception):
    """What the verb `raise` raises."""


class Run:
    """One execution: the resources, the tasks, the trace."""

    def __init__(self, asyncio: types.ModuleType, loop: Any, program: Program) -> None:
        self.asyncio, self.loop = asyncio, loop
        self.trace: list[tuple[Any, ...]] = []
        self.tasks: list[Any] = []
        self.detached: list[Any] = []
        self.sleeps = 0
        many = range(RESOURCES)
        self.locks = [asyncio.Lock() for _ in many]
        self.events = [asyncio.Event() for _ in many]
        self.sems = [asyncio.Semaphore(program.permits[0]), asyncio.BoundedSemaphore(program.permits[1])]
        self.conds = [asyncio.Condition() for _ in many]
        self.queues = [getattr(asyncio, kind)(maxsize) for kind, maxsize in program.queues]
        self.barriers = [asyncio.Barrier(parties) for parties in program.parties]
        # The scopes and groups that are open, by the task in which they are.
        self.scopes: dict[Any, list[Any]] = {}
        self.groups: list[Any] = []
        self.futures = [loop.create_future() for _ in many]

    def log(self, who: str, what: str, *more: Any) -> None:
        self.trace.append((round(self.loop.time(), 6), who, what, *more))

    def delay(self, number: int) -> float:
        # No two timers are ever due at once: their order would be a heap's accident.
        self.sleeps += 1
        return number * 0.1 + self.sleeps * 0.000_1

    async def task(self, who: str, todo: tuple[Step, ...]) -> str:
        self.log(who, "starts")
        try:
            await self.perform(who, todo)
        except BaseException as error:
            self.log(who, "ends", describe(error))
            raise
        self.log(who, "ends")
        return who

    async def perform(self, who: str, todo: tuple[Step, ...]) -> None:
        for n, step in enumerate(todo):
            name = f"{who}.{n}"
            try:
                result = await getattr(self, step.verb if step.verb not in RESERVED else step.verb + "_")(name, step)
            except Exception as error:
                if step.verb in ("raise", "group", "finally", "group_in_group", "factory"):
                    raise
                self.log(name, step.verb, "raised", describe(error))
                continue
            self.log(name, step.verb, result)

    def inner(self, name: str, step: Step) -> Awaitable[str]:
        return self.task(name, step.inner)

    def halves(self, name: str, step: Step) -> list[Awaitable[str]]:
        """The inner steps as two coroutines."""
        middle = len(step.inner) // 2
        return [self.task(name + "a", step.inner[:middle]), self.task(name + "b", step.inner[middle:])]

    # --- leaves ---

    async def yield_(self, _: str, __: Step) -> Any:
        return await self.asyncio.sleep(0)

    async def sleep(self, _: str, step: Step) -> Any:
        return await self.asyncio.sleep(self.delay(step.number), "slept")

    async def acquire(self, _: str, step: Step) -> Any:
        return await self.locks[step.which].acquire()

    async def release(self, _: str, step: Step) -> Any:
        return self.locks[step.which].release()

    async def event_wait(self, _: str, step: Step) -> Any:
        return await self.events[step.which].wait()

    async def event_set(self, _: str, step: Step) -> Any:
        return self.events[step.which].set()

    async def event_clear(self, _: str, step: Step) -> Any:
        return self.events[step.which].clear()

    async def sem_acquire(self, _: str, step: Step) -> Any:
        return await self.sems[step.which].acquire()

    async def sem_release(self, _: str, step: Step) -> Any:
        return self.sems[step.which].release()

    async def put(self, _: str, step: Step) -> Any:
        return await self.queues[step.which].put(step.number)

    async def get(self, _: str, step: Step) -> Any:
        return await self.queues[step.which].get()

    async def put_nowait(self, _: str, step: Step) -> Any:
        return self.queues[step.which].put_nowait(step.number)

    async def get_nowait(self, _: str, step: Step) -> Any:
        return self.queues[step.which].get_nowait()

    async def task_done(self, _: str, step: Step) -> Any:
        return self.queues[step.which].task_done()

    async def join(self, _: str, step: Step) -> Any:
        return await self.queues[step.which].join()

    async def shutdown(self, _: str, step: Step) -> Any:
        if hasattr(self.queues[step.which], "shutdown"):
            return self.queues[step.which].shutdown(immediate=step.number > 3)
        return None

    async def notify(self, _: str, step: Step) -> Any:
        return self.conds[step.which].notify(step.number)

    async def notify_all(self, _: str, step: Step) -> Any:
        return self.conds[step.which].notify_all()

    def victim(self, step: Step) -> Any:
        return self.tasks[step.number % len(self.tasks)]

    async def cancel(self, _: str, step: Step) -> Any:
        return self.victim(step).cancel()

    async def cancel_msg(self, _: str, step: Step) -> Any:
        return self.victim(step).cancel("by step")

    async def uncancel(self, _: str, __: Step) -> Any:
        task = self.asyncio.current_task()
        return task.cancelling(), task.uncancel()

    async def raise_(self, _: str, step: Step) -> Any:
        raise Failure(step.number)

    async def future_set(self, _: str, step: Step) -> Any:
        return self.futures[step.which].set_result(step.number)

    async def future_fail(self, _: str, step: Step) -> Any:
        return self.futures[step.which].set_exception(Failure(step.number))

    async def future_cancel(self, _: str, step: Step) -> Any:
        return self.futures[step.which].cancel()

    async def future_wait(self, _: str, step: Step) -> Any:
        return await self.futures[step.which]

    async def await_task(self, name: str, step: Step) -> Any:
        # Only ever a later one: a circle of waiting tasks cannot be cancelled, by asyncio neither.
        later = int(name.split(".")[0].rstrip("ab")) + 1 + step.number
        return await self.tasks[later] if later < len(self.tasks) else "nobody"

    async def barrier(self, _: str, step: Step) -> Any:
        return await self.barriers[step.which].wait()

    async def barrier_reset(self, _: str, step: Step) -> Any:
        return await self.barriers[step.which].reset()

    async def barrier_abort(self, _: str, step: Step) -> Any:
        return await self.barriers[step.which].abort()

    async def spawn_detached(self, name: str, step: Step) -> Any:
        self.detached.append(self.loop.create_task(self.task(name, step.inner)))

    async def call_soon(self, name: str, step: Step) -> Any:
        handle = self.loop.call_soon(self.log, name, "called")
        if step.number == 5:
            handle.cancel()

    async def call_later(self, name: str, step: Step) -> Any:
        handle = self.loop.call_later(self.delay(step.number), self.log, name, "called later")
        if step.number == 5:
            handle.cancel()

    def primitive(self, step: Step) -> Awaitable[Any]:
        """Something of the primitives to await."""
        which = step.which
        return [
            self.locks[which].acquire,
            self.sems[which].acquire,
            self.queues[which].get,
            lambda: self.queues[which].put(step.number),
            self.events[which].wait,
            self.barriers[which].wait,
            self.queues[which].join,
            self.conds[which].acquire,
        ][(step.number + len(step.inner) + self.sleeps) % 8]()

    async def wait_for_primitive(self, _: str, step: Step) -> Any:
        return await self.asyncio.wait_for(self.primitive(step), self.delay(step.number) if step.number else 0)

    async def task_of_primitive(self, _: str, step: Step) -> Any:
        return await self.keep(self.primitive(step))

    async def gather_primitives(self, _: str, step: Step) -> Any:
        other = dataclasses.replace(step, number=(step.number + 3) % 6)
        return await self.asyncio.gather(self.primitive(step), self.primitive(other))

    async def shield_primitive(self, _: str, step: Step) -> Any:
        return await self.asyncio.shield(self.keep(self.primitive(step)))

    async def abandon(self, _: str, step: Step) -> Any:
        """Starts a wait by hand and gives it up."""
        coro: Any = self.primitive(step)
        try:
            yielded = coro.send(None)
        except StopIteration as stop:
            return "at once", stop.value
        if step.number % 2:
            yielded.cancel()
        try:
            coro.throw(Failure(step.number))
        except (Failure, self.asyncio.CancelledError) as error:
            return describe(error)
        except StopIteration as stop:
            return "went on", stop.value
        finally:
            coro.close()
        return "goes on"

    async def cond_wait_for(self, name: str, step: Step) -> Any:
        asked = 0

        def predicate() -> int:
            nonlocal asked
            asked += 1
            self.log(name, "asked", asked)
            return asked if asked > step.number // 2 else 0

        async with self.conds[step.which]:
            return await self.conds[step.which].wait_for(predicate)

    async def look(self, _: str, __: Step) -> Any:
        return self.state()

    def state(self) -> Any:
        """How all primitives stand."""
        return (
            [lock.locked() for lock in self.locks],
            [(sem.locked(), sem._value) for sem in self.sems],
            [event.is_set() for event in self.events],
            [cond.locked() for cond in self.conds],
            [(queue.qsize(), queue.empty(), queue.full(), queue._unfinished_tasks) for queue in self.queues],
            [(barrier.n_waiting, barrier.broken) for barrier in self.barriers],
        )

    async def reschedule(self, _: str, step: Step) -> Any:
        scopes = [scope for scopes in self.scopes.values() for scope in scopes]
        if not scopes:
            return None
        scope = scopes[step.number % len(scopes)]
        when = None if step.number == 0 else self.loop.time() + self.delay(step.number - 1)
        scope.reschedule(when)
        return scope.expired()

    async def group_cancel(self, _: str, step: Step) -> Any:
        # New in 3.15; before, there is nothing to compare with.
        if self.groups and sys.version_info >= (3, 15):
            self.groups[step.number % len(self.groups)].cancel()

    # --- nests ---

    async def with_lock(self, name: str, step: Step) -> Any:
        async with self.locks[step.which]:
            return await self.inner(name, step)

    async def with_sem(self, name: str, step: Step) -> Any:
        async with self.sems[step.which]:
            return await self.inner(name, step)

    async def with_cond(self, name: str, step: Step) -> Any:
        async with self.conds[step.which]:
            return await self.inner(name, step)

    async def cond_wait(self, name: str, step: Step) -> Any:
        async with self.conds[step.which] as _:
            await self.conds[step.which].wait()
            return await self.inner(name, step)

    async def timeout(self, name: str, step: Step) -> Any:
        return await self.scoped(name, step, self.asyncio.timeout(self.delay(step.number)))

    async def scoped(self, name: str, step: Step, scope: Any) -> Any:
        here = self.scopes.setdefault(self.asyncio.current_task(), [])
        async with scope:
            here.append(scope)
            try:
                await self.inner(name, step)
            finally:
                here.remove(scope)
        return scope.expired()

    async def timeout_at(self, name: str, step: Step) -> Any:
        when = self.loop.time() + self.delay(step.number) - 0.2
        return await self.scoped(name, step, self.asyncio.timeout_at(when))

    async def timeout_unlimited(self, name: str, step: Step) -> Any:
        return await self.scoped(name, step, self.asyncio.timeout(None))

    async def wait_for(self, name: str, step: Step) -> Any:
        return await self.asyncio.wait_for(self.inner(name, step), self.delay(step.number))

    async def group(self, name: str, step: Step) -> Any:
        return await self.grouped(self.halves(name, step), self.asyncio.sleep(0))

    async def grouped(self, coros: list[Any], body: Awaitable[Any], **options: Any) -> Any:
        tasks: list[Any] = []
        try:
            async with self.asyncio.TaskGroup() as group:
                self.groups.append(group)
                try:
                    tasks.extend(group.create_task(coro, **options) for coro in coros)
                finally:
                    await body
            return [outcome(t) for t in tasks]
        except BaseExceptionGroup as error:
            return describe(error)
        finally:
            self.groups.remove(group)

    async def group_failing(self, name: str, step: Step) -> Any:
        return await self.grouped(self.halves(name, step), self.raise_(name, step))

    async def group_of_eager(self, name: str, step: Step) -> Any:
        return await self.grouped(self.halves(name, step), self.asyncio.sleep(0), eager_start=True)

    async def group_in_group(self, name: str, step: Step) -> Any:
        inner = self.grouped(self.halves(name, step), self.asyncio.sleep(0))
        return await self.grouped([self.task(name + "c", step.inner[:1])], inner)

    async def with_barrier(self, name: str, step: Step) -> Any:
        async with self.barriers[step.which] as position:
            return position, await self.inner(name, step)

    async def spawn_eager(self, name: str, step: Step) -> Any:
        task = self.asyncio.Task(self.inner(name, step), loop=self.loop, eager_start=True)
        self.detached.append(task)
        return outcome(task)

    async def as_completed_async(self, name: str, step: Step) -> Any:
        results: list[Any] = []
        tasks = [self.keep(half) for half in self.halves(name, step)]
        if all(task.done() for task in tasks):
            return "asyncio takes them in the order of a set"
        async for task in self.asyncio.as_completed(tasks, timeout=self.delay(step.number + 3)):
            results.append((tasks.index(task), outcome(task)))
        return results

    async def factory(self, name: str, step: Step) -> Any:
        """The inner steps while the loop starts tasks eagerly."""
        before = self.loop.get_task_factory()
        self.loop.set_task_factory(self.asyncio.eager_task_factory)
        try:
            return await self.inner(name, step)
        finally:
            self.loop.set_task_factory(before)

    async def notifying(self, name: str, step: Step) -> Any:
        async with self.conds[step.which]:
            result = await self.inner(name, step)
            if step.number:
                self.conds[step.which].notify(step.number)
            else:
                self.conds[step.which].notify_all()
            return result

    async def forever(self, name: str, step: Step) -> Any:
        """Waits for what never comes, and does the inner steps when it is cancelled."""
        try:
            await self.loop.create_future()
        finally:
            await self.inner(name, step)

    async def retry(self, name: str, step: Step) -> Any:
        """A wait that is tried again after its time is over."""
        for attempt in range(3):
            try:
                return attempt, await self.asyncio.wait_for(self.locks[step.which].acquire(), self.delay(step.number))
            except TimeoutError:
                self.log(name, "again")
        return None

    async def gather(self, name: str, step: Step) -> Any:
        return await self.asyncio.gather(*self.halves(name, step))

    async def gather_exceptions(self, name: str, step: Step) -> Any:
        results = await self.asyncio.gather(*self.halves(name, step), return_exceptions=True)
        return [describe(r) if isinstance(r, BaseException) else r for r in results]

    async def shield(self, name: str, step: Step) -> Any:
        return await self.asyncio.shield(self.keep(self.inner(name, step)))

    def keep(self, coro: Any) -> Any:
        task = self.loop.create_task(coro)
        self.detached.append(task)
        return task

    async def waiting(self, name: str, step: Step, **options: Any) -> Any:
        tasks = [self.keep(half) for half in self.halves(name, step)]
        done, pending = await self.asyncio.wait(tasks, **options)
        return [outcome(t) for t in tasks], [t in done for t in tasks], [t in pending for t in tasks]

    async def wait_first(self, name: str, step: Step) -> Any:
        return await self.waiting(name, step, return_when=self.asyncio.FIRST_COMPLETED)

    async def wait_all(self, name: str, step: Step) -> Any:
        return await self.waiting(name, step)

    async def wait_exception(self, name: str, step: Step) -> Any:
        return await self.waiting(name, step, return_when=self.asyncio.FIRST_EXCEPTION)

    async def wait_timeout(self, name: str, step: Step) -> Any:
        return await self.waiting(name, step, timeout=self.delay(step.number))

    async def as_completed(self, name: str, step: Step) -> Any:
        results = []
        tasks = [self.keep(half) for half in self.halves(name, step)]
        if all(task.done() for task in tasks):
            return "asyncio takes them in the order of a set"
        for future in self.asyncio.as_completed(tasks, timeout=self.delay(step.number + 3)):
            try:
                results.append(await future)
            except Failure as error:
                results.append(describe(error))
        return results

    async def try_(self, name: str, step: Step) -> Any:
        try:
            return await self.inner(name, step)
        except Failure as error:
            return describe(error)

    async def swallow(self, name: str, step: Step) -> Any:
        try:
            return await self.inner(name, step)
        except self.asyncio.CancelledError as error:
            return describe(error)

    async def finally_(self, name: str, step: Step) -> Any:
        try:
            return await self.inner(name, step)
        finally:
            await self.asyncio.sleep(0)
            self.log(name, "cleaned up")


RESERVED = {"yield", "raise", "try", "finally"}


def describe(error: BaseException) -> Any:
    """An exception as data: type, arguments, members, cause."""
    if isinstance(error, BaseExceptionGroup):
        return type(error).__name__, error.message, [describe(e) for e in error.exceptions]
    cause = error.__cause__ and type(error.__cause__).__name__
    args = error.args if isinstance(error, Failure) or type(error).__name__ == "CancelledError" else ()
    return type(error).__name__, args, cause


def outcome(task: Any) -> Any:
    """How a task stands."""
    if not task.done():
        return "pending"
    if task.cancelled():
        return "cancelled"
    return describe(task.exception()) if task.exception() else task.result()


def run(program: Program, asyncio: Any, new_loop: Callable[[], Any]) -> list[tuple[Any, ...]]:
    """Executes the program; every ten virtual seconds what is not done is cancelled, until all is."""
    loop = new_loop()
    problems: list[Any] = []
    loop.set_exception_handler(lambda _, context: problems.append((context["message"], describe(context["exception"])
                               if "exception" in context else None)))  # fmt: skip

    async def main() -> list[tuple[Any, ...]]:
        execution = Run(asyncio, loop, program)
        options = {"eager_start": True} if program.eager and hasattr(asyncio, "eager_task_factory") else {}
        for n, todo in enumerate(program.tasks):
            execution.tasks.append(asyncio.Task(execution.task(str(n), todo), loop=loop, **options))
        for _ in range(50):
            await asyncio.sleep(10)
            every = execution.tasks + execution.detached
            # The children of a gather that failed are in neither list; by their names, in the order they were made.
            known = {asyncio.current_task(), *every}
            others = sorted(asyncio.all_tasks() - known, key=lambda task: (len(task.get_name()), task.get_name()))
            every += others
            execution.log("main", "waited", [outcome(t) for t in every], [t.get_coro().__qualname__ for t in others])
            if all(t.done() for t in every):
                break
            for task in every:
                task.cancel("the end")
        for future in execution.futures:
            if future.done() and not future.cancelled():
                future.exception()
        for cond in execution.conds:
            execution.log("main", "condition locked", cond.locked())
        for lock in execution.locks:
            execution.log("main", "lock locked", lock.locked())
        for sem in execution.sems:
            execution.log("main", "semaphore", sem.locked(), sem._value)
        execution.log("main", "all", execution.state())
        return execution.trace

    try:
        trace = loop.run_until_complete(main())
    finally:
        loop.close()
    return [*trace, ("problems", sorted(map(repr, problems)))]
