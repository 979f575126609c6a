//! Ctrl-C and the like, where something is to be done before the end.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;

/// What somebody wants of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// That it ends.
    End,
    /// That it reads its certificates and tokens anew.
    #[cfg_attr(not(unix), expect(dead_code, reason = "there is no such signal elsewhere"))]
    Reload,
}

/// What asks the command to end, or to reload. From [`Self::listen`] on the process does not end by itself.
#[derive(Debug)]
pub(super) struct Signals {
    #[cfg(unix)]
    interrupt: Signal,
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    hang_up: Signal,
}

impl Signals {
    #[cfg(unix)]
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::Runtime);
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    #[cfg(not(unix))]
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// The next time that somebody asks.
    #[cfg(unix)]
    pub(super) async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.interrupt.recv() => Wanted::End,
            _ = self.terminate.recv() => Wanted::End,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }

    /// The next time that somebody asks.
    #[cfg(not(unix))]
    pub(super) async fn next(&mut self) -> Wanted {
        if tokio::signal::ctrl_c().await.is_err() {
            core::future::pending::<()>().await;
        }
        Wanted::End
    }
}
