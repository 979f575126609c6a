//! An allocator that counts what each thread holds, for tests that bound it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts what the calling thread holds. A reallocation counts as holding the old and the new block at once,
/// as when the allocator has to move it.
pub(crate) struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn hold(bytes: usize) {
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    // A thread may free what another allocated: then the count runs below zero, which is no peak.
    if held < usize::MAX / 2 {
        PEAK.set(PEAK.get().max(held));
    }
}

fn release(bytes: usize) {
    HELD.set(HELD.get().wrapping_sub(bytes));
}

// SAFETY: every call goes to the system's allocator unchanged. The counting touches no allocation, neither
// allocates nor panics, and its thread-locals are constant-initialised and need no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        hold(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        release(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        hold(new_size);
        release(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

/// The most that `run` held at once on this thread beyond what was held before, in bytes, and what it returned.
pub(crate) fn peak_bytes<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (PEAK.get() - before, result)
}

/// What this thread holds now, in bytes.
#[allow(dead_code, reason = "not every test binary compares what is held over time")]
pub(crate) fn held_bytes() -> usize {
    HELD.get()
}
