//! How many files the process may have open: reads of a mount point take one for each segment.

use tracing::warn;

/// What the process opens beside segments: sockets, standard streams, the runtime's own, with room to spare.
const OTHER_FILES: u64 = 128;

/// Raises the limit as far as the system lets us. Gives it; `None` where there is none that is known.
#[cfg(unix)]
pub(super) fn raise_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => limit.maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays as it is");
            limit.current
        }
    }
}

#[cfg(not(unix))]
pub(super) fn raise_limit() -> Option<u64> {
    None
}

/// Warns if so many segments may be more than can be open.
pub(super) fn warn_beyond(limit: Option<u64>, segments: u64) {
    if let Some(limit) = limit
        && segments.saturating_add(OTHER_FILES) > limit
    {
        warn!(
            segments,
            limit,
            "the mount point may come to more segments than this process may open files; raise the limit (ulimit -n), \
             or give --mount-read-mode mapped"
        );
    }
}
