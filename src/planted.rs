//! Bugs planted on purpose, so that the simulator can be seen to find them (RELIABILITY §6).
//!
//! A bug is one line where it would live: `if planted!(18) { … }`, 18 being its catalogue number. Which bug is
//! on is chosen at run time, per thread, by `sim --planted`. Without the feature `planted` the macro is the
//! constant `false` and nothing of a bug is compiled.

/// Whether this build holds bugs that can be switched on.
pub const IS_COMPILED: bool = cfg!(feature = "planted");

/// Whether the bug with this catalogue number is switched on in this thread.
#[macro_export]
macro_rules! planted {
    ($bug:literal) => {{
        #[cfg(feature = "planted")]
        {
            $crate::planted::is_on($bug)
        }
        #[cfg(not(feature = "planted"))]
        {
            false
        }
    }};
}

#[cfg(feature = "planted")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static BUG: Cell<u32> = const { Cell::new(0) };
    }

    /// Whether `bug` is the one switched on in this thread.
    pub fn is_on(bug: u32) -> bool {
        BUG.get() == bug
    }

    /// Switches one bug on in this thread, and every other off; 0 is none.
    pub fn switch_on(bug: u32) {
        BUG.set(bug);
    }
}

#[cfg(feature = "planted")]
pub use switch::{is_on, switch_on};
