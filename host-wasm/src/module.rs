//! What a module without std brings itself: an allocator, and an end to panics.
//!
//! A panic or an allocation that fails ends in a trap, which the embedder sees as an error of the call; nothing in the
//! module may be used after it.

#[cfg(all(target_family = "wasm", target_os = "unknown"))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[cfg(all(
    target_family = "wasm",
    target_os = "unknown",
    any(feature = "javascript", feature = "component")
))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    core::arch::wasm32::unreachable()
}
