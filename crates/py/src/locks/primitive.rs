//! What Lock, Event, Condition and Semaphore have in common as Python objects: the rules with their line, the loop they
//! belong to, a `__dict__`, and the attributes that show these.

use std::ffi::CStr;

use aioxide_core::WaiterKey;
use aioxide_core::sync::Rules;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use pyo3::{Borrowed, intern};

use crate::ffi::cell::{Flag, GilCell, Slot};
use crate::ffi::class::{Builder, Class, Inst, TypeCell};
use crate::ffi::gc::{Stopped, Visit};
use crate::ffi::holds::Holds;
use crate::ffi::method::{Of, getter, noargs};
use crate::names::{Names, names, none};
use crate::waiters::{self, Home};

type Object<'py> = PyResult<Bound<'py, PyAny>>;

/// One of the primitives: its rules, and what it has besides.
pub(crate) trait Kind: Sized + 'static {
    /// Dotted name, as in `aioxide.Lock`.
    const NAME: &'static CStr;
    /// Who is woken next.
    type Rules: Rules<Py<PyAny>>;
    /// Where the type object is kept.
    fn cell() -> &'static TypeCell;
    /// asyncio's own class.
    fn original(names: &Names) -> &Py<PyAny>;
    /// Whether it is exactly of the kind's type (or of a sibling), as that was at first.
    fn is_plain(object: &Bound<'_, PyAny>) -> bool {
        Self::cell().is_plain(object)
    }
    /// asyncio's private methods that its others call, and that a subclass may replace.
    const HOOKS: &'static [&'static CStr] = &[];
    /// Whether asyncio has None in `_waiters` until somebody waits.
    const IS_LAZY: bool = false;
    /// Shows the objects it holds besides to the garbage collector.
    fn traverse(&self, _visit: &Visit<'_>) -> Result<(), Stopped> {
        Ok(())
    }
    /// Lets go of them.
    fn clear(&self, _py: Python<'_>) {}
}

/// An instance.
pub(crate) struct Primitive<K: Kind> {
    pub(super) state: GilCell<K::Rules>,
    pub(super) own: K,
    home: Home,
    /// The program has assigned a line like asyncio's to `_waiters`.
    has_line: Flag<bool>,
    dict: Slot,
}

pub(crate) type This<'a, 'py, K> = Inst<'a, 'py, Primitive<K>>;

impl<K: Kind> Class for Primitive<K> {
    const NAME: &'static CStr = K::NAME;
    const SUBCLASSABLE: bool = true;
    const DICT: Option<usize> = Some(std::mem::offset_of!(Self, dict));

    fn cell() -> &'static TypeCell {
        K::cell()
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), Stopped> {
        self.state.visit(|s| waiters::traverse(s.waiters(), visit)).unwrap_or(Ok(()))?;
        self.own.traverse(visit)?;
        self.home.traverse(visit)?;
        self.dict.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        waiters::drop_all(py, self.state.with(py, |s| s.waiters_mut().take_all()));
        self.own.clear(py);
        self.home.forget(py);
        self.dict.clear(py);
    }
}

impl<K: Kind> Primitive<K> {
    pub(super) const fn with(rules: K::Rules, own: K) -> Self {
        Self {
            state: GilCell::new(rules),
            own,
            home: Home::new(),
            has_line: Flag::new(false),
            dict: Slot::empty(),
        }
    }

    /// `__init__`, maybe once more: nobody waits.
    pub(super) fn start(&self, py: Python<'_>, rules: K::Rules) {
        let mut before = self.state.with(py, |s| std::mem::replace(s, rules));
        waiters::drop_all(py, before.waiters_mut().take_all());
    }

    /// Whether the instance can't have replaced a method.
    #[inline]
    pub(super) fn is_bare(&self) -> bool {
        !self.dict.is_some()
    }

    /// The attribute of that name that the instance has by itself.
    pub(super) fn attribute<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.dict.dict(py)?.map_or(Ok(None), |dict| dict.get_item(name))
    }

    /// Keeps an attribute that shadows one of ours, or has it no longer.
    pub(super) fn change_attribute<'py>(
        this: This<'_, 'py, K>,
        name: &Bound<'py, PyString>,
        value: Option<Borrowed<'_, 'py, PyAny>>,
    ) -> PyResult<()> {
        let py = this.py();
        match (value, this.dict.dict(py)?) {
            (Some(value), _) => {
                this.object().getattr(intern!(py, "__dict__"))?.cast::<PyDict>()?.set_item(name, value)
            }
            (None, Some(dict)) if dict.contains(name)? => dict.del_item(name),
            (None, _) => Ok(()),
        }
    }

    /// Whether asyncio's own methods are those for this instance: the program keeps the line itself, in something that it
    /// has assigned to `_waiters`, to serve those who wait in another order, say; or it has replaced a hook.
    fn is_by_hand(this: This<'_, '_, K>) -> PyResult<bool> {
        let (py, object) = (this.py(), this.object());
        if this.is_bare() && K::is_plain(&object) {
            return Ok(false);
        }
        if this.attribute(py, intern!(py, "_waiters"))?.is_some() {
            return Ok(true);
        }
        for hook in K::HOOKS {
            if K::cell().is_replaced(&object, &this.dict, hook)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What asyncio's own method does, where that is the one.
    #[inline]
    pub(super) fn by_hand<'py>(
        this: This<'_, 'py, K>,
        method: &CStr,
        argument: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = this.py();
        if !Self::is_by_hand(this)? {
            return Ok(None);
        }
        let method = K::original(names(py)).bind(py).getattr(method)?;
        let object = this.object();
        match argument {
            Some(argument) => method.call1((object, argument)),
            None => method.call1((object,)),
        }
        .map(Some)
    }

    /// Whom a decision names, to be woken.
    #[inline]
    pub(super) fn named<'py>(
        &self,
        py: Python<'py>,
        decide: impl FnOnce(&mut K::Rules) -> Option<WaiterKey>,
    ) -> Option<Bound<'py, PyAny>> {
        let named = self.state.with(py, |s| {
            let key = decide(s)?;
            s.waiters().get(key).map(|parked| parked.clone_ref(py))
        });
        named.map(|parked| parked.into_bound(py))
    }

    /// How many are in line, whoever keeps it.
    pub(super) fn count(this: This<'_, '_, K>) -> PyResult<usize> {
        match this.attribute(this.py(), intern!(this.py(), "_waiters"))? {
            Some(own) => own.len(),
            None => Ok(this.waiting(this.py())),
        }
    }

    /// How many are in our line.
    pub(super) fn waiting(&self, py: Python<'_>) -> usize {
        self.state.with(py, |s| s.waiters().len())
    }

    /// A future to wait with, of the loop that this belongs to. Nobody wakes it before [`park`](Self::park).
    #[inline]
    pub(super) fn future<'py>(this: This<'_, 'py, K>) -> Object<'py> {
        this.home.future(&this.object())
    }

    /// Gets in line.
    #[inline]
    pub(super) fn park(&self, future: &Bound<'_, PyAny>) -> WaiterKey {
        let parked = future.clone().unbind();
        self.state.with(future.py(), |s| s.wait(parked))
    }

    /// Gets in line; the future to wait for.
    #[inline]
    pub(crate) fn join<'py>(this: This<'_, 'py, K>) -> PyResult<(WaiterKey, Bound<'py, PyAny>)> {
        let future = Self::future(this)?;
        Ok((this.park(&future), future))
    }

    /// The waiter goes, however its wait ended.
    #[inline]
    pub(crate) fn leave(&self, py: Python<'_>, key: WaiterKey) {
        let left = self.state.with(py, |s| s.waiters_mut().leave(key));
        drop(left.map(|(parked, _)| parked.into_bound(py)));
    }
}

fn get_waiters<'py, K: Kind>(this: This<'_, 'py, K>) -> Object<'py> {
    if let Some(own) = this.attribute(this.py(), intern!(this.py(), "_waiters"))? {
        return Ok(own);
    }
    if K::IS_LAZY && !this.has_line.get() && this.waiting(this.py()) == 0 {
        return Ok(none(this.py()));
    }
    waiters::view(&this.object(), |owner, f| {
        if let Some(this) = This::<K>::cast(owner) {
            this.state.with(owner.py(), |s| f(s.waiters_mut()));
        }
    })
}

/// `_waiters = line`: an empty one, as asyncio's own is at first, or another kind of line, which we leave to the program.
fn set_waiters<'py, K: Kind>(this: This<'_, 'py, K>, line: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    let before = this.state.with(py, |s| s.waiters_mut().take_all());
    waiters::drop_all(py, before);
    let is_asyncios = line.is_none() || line.get_type().is(names(py).deque.bind(py)) && line.is_empty()?;
    this.has_line.set(!line.is_none());
    Primitive::change_attribute(this, intern!(py, "_waiters"), (!is_asyncios).then_some(line))
}

fn get_loop<'py, K: Kind>(this: This<'_, 'py, K>) -> Object<'py> {
    Ok(this.home.get(this.py()))
}

fn set_loop<'py, K: Kind>(this: This<'_, 'py, K>, value: Borrowed<'_, 'py, PyAny>) -> PyResult<()> {
    this.home.set(&value);
    Ok(())
}

fn running<'py, K: Kind>(this: This<'_, 'py, K>) -> Object<'py> {
    this.home.running(&this.object())
}

/// The makings of the type: what all have in common.
pub(super) fn builder<K: Kind>() -> Builder {
    Builder::of::<Primitive<K>>()
        .short_name()
        .method(noargs::<Of<Primitive<K>>, _>(c"_get_loop", running::<K>))
        .attribute(
            getter::<Of<Primitive<K>>, _>(c"_waiters", get_waiters::<K>)
                .setter::<Of<Primitive<K>>, _>(set_waiters::<K>),
        )
        .attribute(
            getter::<Of<Primitive<K>>, _>(c"_loop", get_loop::<K>)
                .setter::<Of<Primitive<K>>, _>(set_loop::<K>),
        )
}
