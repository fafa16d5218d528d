//! Threads of the tool itself.

use std::thread::ScopedJoinHandle;

/// What a thread came to.
pub(crate) fn join<T>(running: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    running.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the tool panicked")))
}
