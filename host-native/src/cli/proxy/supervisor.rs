//! Tells a service manager that waits for it (systemd's `Type=notify`) how far the proxy is. Nothing is told where none
//! does, by `NOTIFY_SOCKET`.

#[cfg(target_os = "linux")]
use sd_notify::NotifyState;

/// Clients are accepted.
pub(super) fn ready() {
    #[cfg(target_os = "linux")]
    tell(NotifyState::Ready);
}

/// The end has begun.
pub(super) fn stopping() {
    #[cfg(target_os = "linux")]
    tell(NotifyState::Stopping);
}

#[cfg(target_os = "linux")]
fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager cannot be told how far the proxy is");
    }
}
