//! `asyncio.gather`: one future for the results of many.
//!
//! The future itself watches its children: it is the hook that a turn calls for each child that is done (see `hooks`),
//! so a gather of our own tasks allocates one object and runs no Python code. Futures that aren't ours get a
//! done-callback instead.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use rustc_hash::FxHashMap;

use crate::anyfuture::{self, Outcome};
use crate::ffi::args::Args;
use crate::ffi::cell::{Flag, Slot};
use crate::ffi::class::Builder;
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::layout::Fut;
use crate::ffi::method::{AnyFuture, getter};
use crate::ffi::{function, gathering, thread};
use crate::names::names;
use crate::tasks::create;
use crate::{futures, hooks, tasks};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// What the future keeps besides its own state.
#[derive(Debug)]
pub(crate) struct Gathering {
    /// The list of children, one for each argument; dropped when the future is done.
    children: Slot,
    /// The task that called `gather`, which the children are awaited by.
    task: Slot,
    /// How many different children there are, and how many of them have told that they are done.
    different: Flag<usize>,
    finished: Flag<usize>,
    return_exceptions: Flag<bool>,
    cancel_requested: Flag<bool>,
}

impl Gathering {
    fn new(return_exceptions: bool, task: Option<&Bound<'_, PyAny>>) -> Self {
        Self {
            children: Slot::empty(),
            task: Slot::new(task.map(|t| t.clone().unbind())),
            different: Flag::new(0),
            finished: Flag::new(0),
            return_exceptions: Flag::new(return_exceptions),
            cancel_requested: Flag::new(false),
        }
    }

    fn children<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyList>> {
        self.children.get(py).and_then(|c| c.cast_into().ok())
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.children.traverse(visit)?;
        self.task.traverse(visit)
    }

    pub(crate) fn clear(&self, py: Python<'_>) {
        drop((self.children.take(py), self.task.take(py)));
    }
}

// --- making ------------------------------------------------------------------------------------

/// The arguments met so far and the child of each: by identity where equality means that, in a dict else.
#[derive(Default)]
struct Met<'py> {
    few: Vec<usize>,
    many: FxHashMap<usize, usize>,
    others: Option<Bound<'py, PyDict>>,
}

/// Up to here a look at each is faster than a table.
const FEW: usize = 12;

impl<'py> Met<'py> {
    /// Whether arguments of this type are equal only to themselves, as far as anybody can tell.
    fn is_plain(argument: &Bound<'py, PyAny>) -> bool {
        crate::ffi::types::is_native_coroutine(argument) || Fut::cast_exact(argument).is_some()
    }

    /// The child that an equal argument has, if there was one.
    fn find(
        &self,
        argument: &Bound<'py, PyAny>,
        children: &[Bound<'py, PyAny>],
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        if Self::is_plain(argument) {
            let address = argument.as_ptr().addr();
            let place = if self.many.is_empty() {
                self.few.iter().position(|&a| a == address)
            } else {
                self.many.get(&address).copied()
            };
            return Ok(place.map(|place| children[place].clone()));
        }
        match &self.others {
            Some(others) => others.get_item(argument),
            None => argument.hash().map(|_| None),
        }
    }

    /// Notes that `argument` has `child`, which is about to become the last of that many.
    fn note(
        &mut self,
        argument: &Bound<'py, PyAny>,
        child: &Bound<'py, PyAny>,
        place: usize,
    ) -> PyResult<()> {
        let address = if Self::is_plain(argument) { argument.as_ptr().addr() } else { 0 };
        if address == 0 {
            let others = self.others.get_or_insert_with(|| PyDict::new(argument.py()));
            others.set_item(argument, child)?;
        }
        if self.many.is_empty() && place < FEW {
            self.few.push(address);
            return Ok(());
        }
        for (place, address) in self.few.drain(..).enumerate() {
            self.many.insert(address, place);
        }
        self.many.insert(address, place);
        Ok(())
    }
}

/// `gather(*coros_or_futures, return_exceptions=False)`.
fn gather<'py>(args: Args<'_, 'py>) -> Object<'py> {
    let py = args.py();
    let return_exceptions = args.only_keyword("gather", "return_exceptions")?;
    let return_exceptions = return_exceptions.map_or(Ok(false), |r| r.is_truthy())?;
    if args.len() == 0 {
        let outer = anyfuture::create(&futures::current_event_loop(py)?)?;
        anyfuture::release(&outer, PyList::empty(py).into_any())?;
        return Ok(outer);
    }
    let event_loop = thread::running_loop(py)?;
    let task = match &event_loop {
        Some(event_loop) => thread::current_task(event_loop)?,
        None => None,
    };
    let outer = gathering::alloc(py, Gathering::new(return_exceptions, task.as_ref()))?;
    let (Some(future), Some(state)) =
        (Fut::gathering(&outer), Fut::gathering(&outer).and_then(Fut::gathered))
    else {
        unreachable!("just made")
    };
    let mut event_loop = event_loop;
    let mut children = Vec::with_capacity(args.len());
    let mut met = Met { few: Vec::with_capacity(args.len().min(FEW)), ..Met::default() };
    if args.len() > FEW {
        met.many.reserve(args.len());
    }
    let (mut done, mut different) = (Vec::new(), 0);
    for i in 0..args.len() {
        let Some(argument) = args.get(i) else { break };
        let argument = argument.to_owned();
        if let Some(child) = met.find(&argument, &children)? {
            met_again(&mut met, &mut children, child);
            continue;
        }
        let child = create::ensure_future(&argument, event_loop.as_ref())?;
        if event_loop.is_none() {
            event_loop = Some(anyfuture::loop_of(&child)?);
        }
        if !child.is(&argument) {
            // Nobody but us can see to the task: no "destroyed while pending".
            match crate::ffi::layout::Tsk::cast_exact(&child) {
                Some(task) => task.set_log_destroy_pending(false),
                None => child.setattr(intern!(py, "_log_destroy_pending"), false)?,
            }
        }
        different += 1;
        met.note(&argument, &child, children.len())?;
        if anyfuture::is_done(&child)? {
            done.push(child.clone());
        } else {
            anyfuture::add_awaited_by(&child, task.as_ref())?;
            hooks::watch(&child, &outer)?;
        }
        children.push(child);
    }
    let Some(event_loop) = event_loop else { unreachable!("there was a child") };
    futures::init_with(future, Some(event_loop.as_borrowed()))?;
    state.different.set(different);
    state.children.set(py, PyList::new(py, children)?.into_any());
    // All children that were done before: as if they told it now, so that a gather of such is done at once.
    for child in done {
        on_done(future, &child)?;
    }
    Ok(outer)
}

/// An argument that was given before.
fn met_again<'py>(met: &mut Met<'py>, children: &mut Vec<Bound<'py, PyAny>>, child: Bound<'py, PyAny>) {
    if met.many.is_empty() {
        met.few.push(0); // places are those of the children
    }
    children.push(child);
}

// --- life --------------------------------------------------------------------------------------

/// One of the children is done.
#[inline]
pub(crate) fn on_done<'py>(outer: Fut<'_, 'py>, child: &Bound<'py, PyAny>) -> PyResult<()> {
    let Some(state) = outer.gathered() else { return Ok(()) };
    let py = outer.py();
    state.finished.set(state.finished.get() + 1);
    anyfuture::discard_awaited_by(child, state.task.get(py).as_ref())?;
    // A loop comes last when it is made: without one, an argument was refused and there is nobody to tell.
    if !outer.is_initialized() || !outer.is_pending() {
        if !anyfuture::is_cancelled(child)? {
            anyfuture::outcome(child)?; // the exception, if any, is retrieved
        }
        return Ok(());
    }
    if !state.return_exceptions.get() {
        let error = match anyfuture::outcome(child)? {
            Outcome::Cancelled => Some(anyfuture::cancelled_error(child)?),
            Outcome::Failed(error) => Some(error),
            Outcome::Pending | Outcome::Returned(_) => None,
        };
        if let Some(error) = error {
            // The children that go on are awaited by nobody here.
            if crate::version::AWAITED_BY
                && let (Some(children), Some(task)) = (state.children(py), state.task.get(py))
            {
                for child in children.iter() {
                    anyfuture::discard_awaited_by(&child, Some(&task))?;
                }
            }
            state.clear(py);
            return futures::set_exception(outer, &error);
        }
    }
    if state.finished.get() == state.different.get() { finish(outer, state) } else { Ok(()) }
}

/// All children are done.
fn finish(outer: Fut<'_, '_>, state: &Gathering) -> PyResult<()> {
    let py = outer.py();
    let Some(children) = state.children(py) else { return Ok(()) };
    let mut results = Vec::with_capacity(children.len());
    for child in children.iter() {
        results.push(match anyfuture::outcome(&child)? {
            Outcome::Failed(value) | Outcome::Returned(value) => value,
            Outcome::Pending | Outcome::Cancelled => cancellation(&child)?,
        });
    }
    state.clear(py);
    if state.cancel_requested.get() {
        // Asked to cancel, whatever the children made of it: passed on even with return_exceptions.
        let last = children.get_item(children.len() - 1)?;
        return futures::set_exception(outer, &anyfuture::cancelled_error(&last)?);
    }
    futures::set_result(outer, PyList::new(py, results)?.into_any())
}

/// A CancelledError as a result: a new one, which nobody raises.
fn cancellation<'py>(child: &Bound<'py, PyAny>) -> Object<'py> {
    let py = child.py();
    let message = match Fut::cast_exact(child) {
        Some(known) => known.cancel_msg(),
        None => Some(child.getattr(intern!(py, "_cancel_message"))?),
    };
    let message = message.filter(|m| !m.is_none()).unwrap_or_else(|| intern!(py, "").clone().into_any());
    names(py).cancelled_error.bind(py).call1((message,))
}

/// `cancel(msg=None)` of a pending gather: cancels the children, and is over when they are.
pub(crate) fn cancel<'py>(
    state: &Gathering,
    py: Python<'py>,
    message: Option<Bound<'py, PyAny>>,
) -> PyResult<bool> {
    let Some(children) = state.children(py) else { return Ok(false) };
    let mut any = false;
    for child in children.iter() {
        any |= tasks::cancel_waiter(&child, message.as_ref())?;
    }
    if any {
        state.cancel_requested.set(true);
    }
    Ok(any)
}

// --- attributes --------------------------------------------------------------------------------

fn get_children<'py>(this: Fut<'_, 'py>) -> Object<'py> {
    let children = this.gathered().and_then(|state| state.children(this.py()));
    Ok(children.unwrap_or_else(|| PyList::empty(this.py())).into_any())
}

/// What the type has besides Future's own.
pub(crate) fn attributes(builder: Builder) -> Builder {
    builder.attribute(getter::<AnyFuture, _>(c"_children", get_children))
}

/// Makes the function.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("gather", function::function(module.py(), "asyncio.tasks", "gather", gather)?)
}
