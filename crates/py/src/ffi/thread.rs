//! What asyncio keeps for each thread: the running loop, the current task and (3.14 and later) the list of tasks.
//!
//! Stock asyncio's own state is used, never a copy, so `current_task()`, `all_tasks()`, `get_running_loop()` and
//! `python -m asyncio ps` see our tasks. From 3.14 this state sits in the thread state at offsets that `calibrate`
//! finds by experiment at import; where they can't be found, and before 3.14, `_asyncio`'s functions are called.
#![allow(unsafe_code, reason = "reads and writes asyncio's fields of the thread state")]

#[cfg(all(Py_3_12, not(Py_3_13)))]
use pyo3::exceptions::PyKeyError;
#[cfg(Py_3_12)]
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use super::layout::Tsk;

/// `_asyncio`'s functions for this state.
struct Stock {
    set_running_loop: Py<PyAny>,
    get_running_loop: Py<PyAny>,
    register: Py<PyAny>,
    current_task: Py<PyAny>,
    #[cfg(Py_3_12)]
    swap: Py<PyAny>,
    #[cfg(not(Py_3_12))]
    enter: Py<PyAny>,
    #[cfg(not(Py_3_12))]
    leave: Py<PyAny>,
    #[cfg(Py_3_12)]
    register_eager: Py<PyAny>,
    #[cfg(all(Py_3_12, not(Py_3_14)))]
    unregister_eager: Py<PyAny>,
}

static STOCK: PyOnceLock<Stock> = PyOnceLock::new();

fn stock(py: Python<'_>) -> PyResult<&Stock> {
    STOCK.get_or_try_init(py, || {
        let module = py.import("_asyncio")?;
        let get = |name: &str| module.getattr(name).map(Bound::unbind);
        Ok(Stock {
            set_running_loop: get("_set_running_loop")?,
            get_running_loop: get("_get_running_loop")?,
            register: get("_register_task")?,
            current_task: py.import("asyncio.tasks")?.getattr("current_task")?.unbind(),
            #[cfg(Py_3_12)]
            swap: get("_swap_current_task")?,
            #[cfg(not(Py_3_12))]
            enter: get("_enter_task")?,
            #[cfg(not(Py_3_12))]
            leave: get("_leave_task")?,
            #[cfg(Py_3_12)]
            register_eager: get("_register_eager_task")?,
            #[cfg(all(Py_3_12, not(Py_3_14)))]
            unregister_eager: get("_unregister_eager_task")?,
        })
    })
}

/// The loop that runs in this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Option<Bound<'_, PyAny>>> {
    #[cfg(Py_3_14)]
    if let Some(fields) = fields::of_thread(py) {
        // SAFETY: the field is null or owns a reference; the GIL is held.
        return Ok(unsafe { Bound::from_borrowed_ptr_or_opt(py, *fields.running_loop) });
    }
    let running = stock(py)?.get_running_loop.bind(py).call0()?;
    Ok((!running.is_none()).then_some(running))
}

/// Says which loop runs in this thread.
pub(crate) fn set_running_loop(py: Python<'_>, event_loop: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    stock(py)?.set_running_loop.bind(py).call1((event_loop,))?;
    Ok(())
}

/// The state of the calling thread, looked up once for many uses: it stays the same for as long as the thread runs
/// Python code of one interpreter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'py> {
    state: *mut pyo3::ffi::PyThreadState,
    py: std::marker::PhantomData<Python<'py>>,
}

impl<'py> Here<'py> {
    #[inline]
    pub(crate) fn new(_: Python<'py>) -> Self {
        // SAFETY: the GIL is held, so there is a thread state.
        Self { state: unsafe { pyo3::ffi::PyThreadState_Get() }, py: std::marker::PhantomData }
    }

    #[inline]
    pub(super) fn state(self) -> *mut pyo3::ffi::PyThreadState {
        self.state
    }
}

/// Where the thread keeps its current task, while there is one; none where that is out of reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered(Option<std::ptr::NonNull<*mut pyo3::ffi::PyObject>>);

/// Makes `task` the current one; there must be none (RuntimeError). The caller keeps a reference to the task.
#[inline(always)]
#[allow(clippy::inline_always, reason = "a part of each step: see step.rs")]
pub(crate) fn enter_task<'py>(here: Here<'py>, task: Tsk<'_, 'py>) -> PyResult<Entered> {
    #[cfg(not(Py_3_14))]
    let _ = here;
    #[cfg(Py_3_14)]
    if let Some(fields) = fields::of(here) {
        // SAFETY: the fields are null or own references; the GIL is held. The new reference is given to the field.
        unsafe {
            let current = fields.running_task;
            if *fields.running_loop != task.fut().loop_ptr() || !(*current).is_null() {
                return Err(refused(task, &fields));
            }
            pyo3::ffi::Py_INCREF(task.object().as_ptr());
            *current = task.object().as_ptr();
            return Ok(Entered(std::ptr::NonNull::new(current)));
        }
    }
    enter_by_call(task)?;
    Ok(Entered(None))
}

/// Ends `enter_task`; `task` must still be the current one (RuntimeError).
#[inline(always)]
#[allow(clippy::inline_always, reason = "a part of each step: see step.rs")]
pub(crate) fn leave_task(task: Tsk<'_, '_>, entered: Entered) -> PyResult<()> {
    let Some(current) = entered.0 else { return leave_by_call(task) };
    // SAFETY: the field of this thread's state, which is there as long as the thread: null, or it owns a reference.
    // That is dropped after the field is null, and it is not the last one.
    unsafe {
        let after = *current.as_ptr();
        if after != task.object().as_ptr() {
            #[cfg(Py_3_14)]
            return Err(not_entered(task, Bound::from_borrowed_ptr_or_opt(task.py(), after)));
        }
        *current.as_ptr() = std::ptr::null_mut();
        pyo3::ffi::Py_DECREF(after);
    }
    Ok(())
}

/// A number for the calling thread, cheaper than the system's: the address of what is its own.
#[inline]
pub(crate) fn thread_id() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let here: usize;
        // SAFETY: the psABI keeps a pointer to itself in the first word of the thread control block.
        unsafe {
            std::arch::asm!("mov {}, fs:0", out(reg) here, options(nostack, preserves_flags, readonly, pure));
        }
        here
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        thread_local!(static HERE: u8 = const { 0 });
        HERE.with(|here| std::ptr::from_ref(here).addr())
    }
}

/// `asyncio.current_task(event_loop)`.
#[inline]
pub(crate) fn current_task<'py>(event_loop: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = event_loop.py();
    #[cfg(Py_3_14)]
    if let Some(fields) = fields::of_thread(py) {
        // SAFETY: the fields are null or own references; the GIL is held.
        unsafe {
            if *fields.running_loop == event_loop.as_ptr() {
                return Ok(Bound::from_borrowed_ptr_or_opt(py, *fields.running_task));
            }
        }
    }
    let task = stock(py)?.current_task.bind(py).call1((event_loop,))?;
    Ok((!task.is_none()).then_some(task))
}

/// The task that runs in this thread, of whichever loop.
#[inline]
pub(crate) fn acting(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    #[cfg(Py_3_14)]
    if let Some(fields) = fields::of_thread(py) {
        // SAFETY: the field is null or owns a reference; the GIL is held.
        return unsafe { Bound::from_borrowed_ptr_or_opt(py, *fields.running_task) };
    }
    #[cfg(not(Py_3_14))]
    if let Some(task) = native::acting(py) {
        return Some(task);
    }
    let running = running_loop(py).ok().flatten()?;
    current_task(&running).ok().flatten()
}

/// Makes `task` (or none) the current one and returns the one before: an eager start runs inside another task.
pub(crate) fn swap_current<'py>(
    event_loop: &Bound<'py, PyAny>,
    task: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = event_loop.py();
    #[cfg(Py_3_12)]
    let previous = swap_by_call(py, Some(event_loop), task)?;
    #[cfg(not(Py_3_12))]
    let previous = {
        let current = py.import("_asyncio")?.getattr("_current_tasks")?;
        let previous = current.call_method1("get", (event_loop,))?;
        match task {
            Some(task) => current.set_item(event_loop, task)?,
            None => drop(current.call_method1("pop", (event_loop, py.None()))?),
        }
        previous
    };
    #[cfg(not(Py_3_14))]
    native::enter(task);
    Ok((!previous.is_none()).then_some(previous))
}

/// `_swap_current_task`: returns the task before, or `None`.
#[cfg(Py_3_12)]
fn swap_by_call<'py>(
    py: Python<'py>,
    event_loop: Option<&Bound<'py, PyAny>>,
    task: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let swapped = stock(py)?.swap.bind(py).call1((event_loop, task));
    // That of 3.12 raises KeyError where there is no task to forget.
    #[cfg(not(Py_3_13))]
    if task.is_none() && swapped.as_ref().is_err_and(|error| error.is_instance_of::<PyKeyError>(py)) {
        return Ok(py.None().into_bound(py));
    }
    swapped
}

#[cfg(Py_3_12)]
fn enter_by_call(task: Tsk<'_, '_>) -> PyResult<()> {
    let (py, event_loop) = (task.py(), task.fut().event_loop());
    let previous = swap_by_call(py, event_loop.as_ref(), Some(&task.object()))?;
    if previous.is_none() {
        #[cfg(not(Py_3_14))]
        native::enter(Some(&task.object()));
        return Ok(());
    }
    swap_by_call(py, event_loop.as_ref(), Some(&previous))?;
    Err(already(task, &previous))
}

#[cfg(Py_3_12)]
fn leave_by_call(task: Tsk<'_, '_>) -> PyResult<()> {
    #[cfg(not(Py_3_14))]
    native::enter(None);
    let (py, event_loop) = (task.py(), task.fut().event_loop());
    let previous = swap_by_call(py, event_loop.as_ref(), None)?;
    if previous.is(task.object()) {
        return Ok(());
    }
    let previous = (!previous.is_none()).then_some(previous);
    swap_by_call(py, event_loop.as_ref(), previous.as_ref())?;
    Err(not_entered(task, previous))
}

#[cfg(not(Py_3_12))]
fn enter_by_call(task: Tsk<'_, '_>) -> PyResult<()> {
    let py = task.py();
    stock(py)?.enter.bind(py).call1((task.fut().event_loop(), task.object()))?;
    native::enter(Some(&task.object()));
    Ok(())
}

#[cfg(not(Py_3_12))]
fn leave_by_call(task: Tsk<'_, '_>) -> PyResult<()> {
    let py = task.py();
    native::enter(None);
    stock(py)?.leave.bind(py).call1((task.fut().event_loop(), task.object()))?;
    Ok(())
}

/// Why the task can't be entered.
#[cfg(Py_3_14)]
#[cold]
fn refused(task: Tsk<'_, '_>, fields: &fields::Fields) -> PyErr {
    // SAFETY: as in `enter_task`.
    unsafe {
        if *fields.running_loop != task.fut().loop_ptr() || (*fields.running_task).is_null() {
            return not_running(task);
        }
        already(task, &Bound::from_borrowed_ptr(task.py(), *fields.running_task))
    }
}

#[cfg(Py_3_14)]
#[cold]
fn not_running(task: Tsk<'_, '_>) -> PyErr {
    let event_loop = task.fut().event_loop();
    let shown = event_loop.map_or_else(|| Ok("None".to_owned()), |l| l.repr().map(|r| r.to_string()));
    shown.map_or_else(|e| e, |shown| PyRuntimeError::new_err(format!("loop {shown} is not the running loop")))
}

#[cfg(Py_3_12)]
#[cold]
fn already(task: Tsk<'_, '_>, current: &Bound<'_, PyAny>) -> PyErr {
    let text = || {
        let (task, current) = (task.object().repr()?, current.repr()?);
        Ok(format!("Cannot enter into task {task} while another task {current} is being executed."))
    };
    text().map_or_else(|e: PyErr| e, PyRuntimeError::new_err)
}

#[cfg(Py_3_12)]
#[cold]
fn not_entered(task: Tsk<'_, '_>, current: Option<Bound<'_, PyAny>>) -> PyErr {
    let text = || {
        let current = current.map_or_else(|| Ok("None".to_owned()), |c| c.repr().map(|r| r.to_string()))?;
        let task = task.object().repr()?;
        Ok(if cfg!(Py_3_14) {
            format!("Invalid attempt to leave task {task} while task {current} is entered.")
        } else {
            format!("Leaving task {task} does not match the current task {current}.")
        })
    };
    text().map_or_else(|e: PyErr| e, PyRuntimeError::new_err)
}

/// Lets `all_tasks()` see the task.
#[inline]
pub(crate) fn register(task: Tsk<'_, '_>) -> PyResult<()> {
    #[cfg(Py_3_14)]
    if let Some(fields) = fields::of_thread(task.py()) {
        // SAFETY: the head is the thread's own list, the node the task's own; the GIL is held.
        unsafe { fields::insert(fields.tasks, task.node()) };
        return Ok(());
    }
    let py = task.py();
    stock(py)?.register.bind(py).call1((task.object(),))?;
    Ok(())
}

/// As [`register`], for a task that is about to run eagerly.
pub(crate) fn register_eager(task: Tsk<'_, '_>) -> PyResult<()> {
    #[cfg(Py_3_12)]
    {
        let py = task.py();
        stock(py)?.register_eager.bind(py).call1((task.object(),))?;
        Ok(())
    }
    #[cfg(not(Py_3_12))]
    register(task)
}

/// Ends [`register_eager`] where eager tasks have a list of their own (3.12 and 3.13).
pub(crate) fn unregister_eager(task: Tsk<'_, '_>) -> PyResult<()> {
    #[cfg(all(Py_3_12, not(Py_3_14)))]
    {
        let py = task.py();
        stock(py)?.unregister_eager.bind(py).call1((task.object(),))?;
    }
    let _ = task;
    Ok(())
}

/// The task is done or gone: out of the list (3.14 and later; before, the list holds weak references).
#[inline]
pub(crate) fn unregister(task: Tsk<'_, '_>) {
    #[cfg(Py_3_14)]
    // SAFETY: the node is the task's own, in a list of this interpreter or in none; the GIL is held.
    unsafe {
        fields::remove(task.node());
    }
    #[cfg(not(Py_3_14))]
    let _ = task;
}

/// Finds where the thread state keeps asyncio's fields. Without them everything still works, by calls.
pub(crate) fn calibrate(py: Python<'_>) -> PyResult<()> {
    stock(py)?;
    #[cfg(Py_3_14)]
    fields::calibrate(py)?;
    Ok(())
}

/// Before 3.14 asking `_asyncio` for the current task costs more than an `acquire`: here is the one that a step of ours
/// has entered in this thread.
#[cfg(not(Py_3_14))]
mod native {
    use std::cell::Cell;
    use std::ptr;

    use pyo3::ffi::PyObject;
    use pyo3::prelude::*;

    use super::super::layout::Tsk;

    thread_local!(static ACTING: Cell<*mut PyObject> = const { Cell::new(ptr::null_mut()) });

    /// Notes the current task. One that isn't ours is not noted, as nobody would say here that it left.
    #[inline]
    pub(super) fn enter(task: Option<&Bound<'_, PyAny>>) {
        let task = task.filter(|task| Tsk::cast(task).is_some());
        ACTING.with(|acting| acting.set(task.map_or(ptr::null_mut(), |task| task.as_ptr())));
    }

    #[inline]
    pub(super) fn acting(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
        // SAFETY: null, or a task that `_asyncio` holds as the current one until it leaves, which is noted first.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, ACTING.with(Cell::get)) }
    }
}

#[cfg(Py_3_14)]
mod fields {
    use std::sync::atomic::{AtomicIsize, Ordering};

    use pyo3::ffi::{self, PyObject};
    use pyo3::prelude::*;

    use super::super::layout::{Node, Tsk};
    use super::Here;

    /// Distance in bytes from the thread state to the head of its list of tasks; 0 when unknown.
    static HEAD: AtomicIsize = AtomicIsize::new(0);

    /// CPython keeps these three side by side, in this order; `calibrate` checks it.
    pub(super) struct Fields {
        pub(super) running_loop: *mut *mut PyObject,
        pub(super) running_task: *mut *mut PyObject,
        pub(super) tasks: *mut Node,
    }

    #[inline]
    pub(super) fn of_thread(py: Python<'_>) -> Option<Fields> {
        of(Here::new(py))
    }

    #[inline]
    pub(super) fn of(here: Here<'_>) -> Option<Fields> {
        let offset = HEAD.load(Ordering::Relaxed);
        (offset != 0).then(|| at(here, offset))
    }

    #[inline]
    fn at(here: Here<'_>, offset: isize) -> Fields {
        // SAFETY: the thread's own state; `offset` lies inside it (calibrated).
        unsafe {
            let head = here.state().cast::<u8>().offset(offset);
            Fields {
                running_loop: head.sub(2 * size_of::<usize>()).cast(),
                running_task: head.sub(size_of::<usize>()).cast(),
                tasks: head.cast(),
            }
        }
    }

    pub(super) unsafe fn insert(head: *mut Node, node: *mut Node) {
        // SAFETY: a circular list with `head` in it; `node` is in no list when its `next` is null.
        unsafe {
            if !(*node).next.is_null() {
                return;
            }
            (*node).prev = (*head).prev;
            (*node).next = head;
            (*(*head).prev).next = node;
            (*head).prev = node;
        }
    }

    pub(super) unsafe fn remove(node: *mut Node) {
        // SAFETY: a node of a circular list, or with null neighbours of none.
        unsafe {
            if (*node).next.is_null() {
                return;
            }
            (*(*node).prev).next = (*node).next;
            (*(*node).next).prev = (*node).prev;
            (*node).next = std::ptr::null_mut();
            (*node).prev = std::ptr::null_mut();
        }
    }

    /// Lets `_asyncio` register a task and set a running loop and a current task, and looks where they went.
    pub(super) fn calibrate(py: Python<'_>) -> PyResult<()> {
        let module = py.import("_asyncio")?;
        let outer = module.getattr("_get_running_loop")?.call0()?;
        if !outer.is_none() {
            return Ok(()); // imported inside a running loop: leave its state alone and go by calls
        }
        let probe = pyo3::types::PyDict::new(py);
        py.run(ffi::c_str!(include_str!("probe.py")), Some(&probe), None)?;
        let (Some(task), Some(event_loop)) = (probe.get_item("task")?, probe.get_item("event_loop")?) else {
            return Ok(());
        };
        // SAFETY: probe.py made it with `_asyncio.Task`.
        let node = unsafe { Tsk::new(task.as_borrowed()) }.node();
        module.getattr("_unregister_task")?.call1((&task,))?;
        module.getattr("_register_task")?.call1((&task,))?;
        // SAFETY: registered last, so the next node is the head, inside this thread's state.
        let offset = unsafe { (*node).next.cast::<u8>().offset_from(ffi::PyThreadState_Get().cast::<u8>()) };
        module.getattr("_unregister_task")?.call1((&task,))?;
        if !(0..1 << 16).contains(&offset) {
            return Ok(());
        }
        let fields = at(Here::new(py), offset);
        module.getattr("_set_running_loop")?.call1((&event_loop,))?;
        module.getattr("_enter_task")?.call1((&event_loop, &task))?;
        // SAFETY: reads two words next to the head, inside the thread state.
        let found =
            unsafe { *fields.running_loop == event_loop.as_ptr() && *fields.running_task == task.as_ptr() };
        module.getattr("_leave_task")?.call1((&event_loop, &task))?;
        module.getattr("_set_running_loop")?.call1((py.None(),))?;
        if found {
            HEAD.store(offset, Ordering::Relaxed);
        }
        Ok(())
    }
}
