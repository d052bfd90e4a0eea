//! What each task has cost: steps and processor time, and since when it is known. Kept only while it is asked for.

use std::collections::HashMap;

use aioxide_sys::clock;
use pyo3::prelude::*;

use super::running;
use crate::event_loop::EventLoop;
use crate::ffi::cell::GilCell;
use crate::ffi::layout::Tsk;
use crate::locks::holders::{Identity, identity};
use crate::pulse::instrument;

/// One task's account.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    /// When its first step was recorded, by the loop's clock.
    pub(super) since: f64,
    pub(super) steps: u64,
    pub(super) cpu: f64,
}

static ACCOUNTS: GilCell<Option<HashMap<Identity, Account>>> = GilCell::new(None);

/// `_keep_accounts(on)`: for every loop that runs, and those that start later.
#[pyfunction]
pub(super) fn _keep_accounts(py: Python<'_>, on: bool) {
    let kept = ACCOUNTS.with(py, |accounts| {
        let was_on = accounts.is_some();
        if on == was_on { None } else { std::mem::replace(accounts, on.then(HashMap::new)) }
    });
    drop(kept);
    for (event_loop, _) in running::all(py) {
        follow(&event_loop);
    }
}

/// A loop starts to run.
pub(super) fn follow(event_loop: &Bound<'_, EventLoop>) {
    let is_on = ACCOUNTS.with(event_loop.py(), |accounts| accounts.is_some());
    EventLoop::core(event_loop).set_instrument(instrument::ACCOUNTS, is_on);
}

/// A task has made a step that took so many seconds of processor time.
pub(crate) fn step(task: &Bound<'_, PyAny>, cpu: f64) {
    let Some(identity) = identity(task) else { return };
    let is_over = Tsk::cast_any(task).is_some_and(|task| !task.fut().is_pending());
    ACCOUNTS.with(task.py(), |accounts| {
        let Some(accounts) = accounts else { return };
        if is_over {
            accounts.remove(&identity);
            return;
        }
        let account = accounts.entry(identity).or_insert_with(|| Account {
            since: clock::monotonic(),
            steps: 0,
            cpu: 0.0,
        });
        account.steps += 1;
        account.cpu += cpu;
    });
}

/// The account of a task, if it has one.
pub(super) fn of(task: &Bound<'_, PyAny>) -> Option<Account> {
    let identity = identity(task)?;
    ACCOUNTS
        .with(task.py(), |accounts| accounts.as_ref().and_then(|accounts| accounts.get(&identity).copied()))
}

/// Forgets tasks that went away without ending, once they are many; `alive` are all tasks there are.
pub(super) fn tidy(py: Python<'_>, alive: &[Bound<'_, PyAny>]) {
    let is_full = ACCOUNTS.with(py, |accounts| {
        accounts.as_ref().is_some_and(|accounts| accounts.len() > 2 * alive.len() + 1000)
    });
    if is_full {
        let known: std::collections::HashSet<Identity> = alive.iter().filter_map(identity).collect();
        ACCOUNTS.with(py, |accounts| {
            if let Some(accounts) = accounts {
                accounts.retain(|identity, _| known.contains(identity));
            }
        });
    }
}
