//! The operating system as aioxide needs it, behind a safe API: what can be waited for, and how to wait.
//!
//! **`sys` waits**, `core` orders, `py` runs. This crate knows no Python and none of `core`'s rules. All
//! calls go through rustix and socket2; the few that those cannot express safely live in [`fd`].

pub mod addr;
pub mod child;
pub mod clock;
pub mod driver;
pub mod fd;
pub mod fork;
pub mod kernel;
pub mod landing;
pub mod pipe;
pub mod poller;
pub mod sendfile;
pub mod signal;
pub mod slots;
pub mod socket;
pub mod stream;
pub mod thread;
pub mod traffic;
pub mod waker;

pub use addr::Address;
pub use child::{Child, Exit};
pub use driver::Driver;
pub use fd::Raw;
pub use landing::Landing;
pub use poller::{Event, Events, Interest, Poller, Readiness, Sim};
pub use signal::SignalPipe;
pub use slots::{Key, Slots};
pub use waker::Waker;
