//! A herd: thousands of devices in one process, on real sockets, in front of one hub of the emulator.

mod flock;
mod measure;
mod metronome;

pub use flock::Flock;
pub use measure::{Band, Measured};
pub use metronome::Metronome;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Sees to it that this process may hold so many files open, sockets included.
///
/// # Errors
/// A sentence for people, when the system does not allow it.
pub fn allow_files(wanted: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return Ok(());
    }
    if limit.maximum.is_some_and(|most| most < wanted) {
        return Err(format!(
            "the herd needs {wanted} open files and the system allows {}: raise the hard limit (`ulimit -Hn`)",
            limit.maximum.unwrap_or(0)
        ));
    }
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum })
        .map_err(|error| format!("the limit of open files cannot be raised to {wanted}: {error}"))
}
