//! What becomes of reading a part of a mapping that is not there, because the file was cut by somebody else or its
//! medium failed.
//!
//! The kernel says so by `SIGBUS`, which ends the process unless it is handled. The handler here looks up whether the
//! address lies in a mapping of ours; if so it puts pages of zeros there, marks the mapping as damaged and lets the read
//! go on: it gets zeros, of which the checksum is wrong, and the cache counts a miss. Every other `SIGBUS` goes to whoever
//! handled it before.
//!
//! The handler is installed with the first mapping and stays. Whoever installs another after it takes it out of use.

use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, fence};
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};

/// How many mappings there may be at a time. Linux allows a process about as many by default (`vm.max_map_count`).
pub(super) const MAPPINGS_MAX: usize = 65_536;

/// Where a mapping lies. Read by the signal handler, so of atomics only.
struct Place {
    /// Odd while the place is in use; goes up by one whenever that changes.
    generation: AtomicU32,
    is_damaged: AtomicBool,
    begins: AtomicUsize,
    /// At the end of the last page.
    ends: AtomicUsize,
}

static PLACES: [Place; MAPPINGS_MAX] = [const {
    Place {
        generation: AtomicU32::new(0),
        is_damaged: AtomicBool::new(false),
        begins: AtomicUsize::new(0),
        ends: AtomicUsize::new(0),
    }
}; MAPPINGS_MAX];

/// How many places have ever been in use, which is as far as the handler has to look.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Places that were in use and are not. Never touched by the handler.
static FREE: Mutex<Vec<&'static Place>> = Mutex::new(Vec::new());

/// Who handled the signal before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// Lets a mapping be read though a part of it may be missing.
pub(super) struct Watch {
    /// `None` when it has ended.
    place: Option<&'static Place>,
}

impl core::fmt::Debug for Watch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Watch")
            .field("is_damaged", &self.is_damaged())
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Over the mapping of so many bytes that begins at this address.
    pub(super) fn over(begins: usize, length: usize) -> io::Result<Self> {
        install()?;
        let ends = begins
            .checked_add(length)
            .and_then(|end| end.checked_next_multiple_of(rustix::param::page_size()))
            .ok_or(io::ErrorKind::InvalidInput)?;
        let free = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let place = match free {
            Some(place) => place,
            None => PLACES
                .get(USED.fetch_add(1, AcqRel))
                .ok_or_else(too_many_mappings)?,
        };
        // Whoever reads one of these sees the generation that went before them, and looks again.
        fence(Release);
        place.is_damaged.store(false, Relaxed);
        place.begins.store(begins, Relaxed);
        place.ends.store(ends, Relaxed);
        place.generation.fetch_add(1, Release);
        Ok(Self { place: Some(place) })
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.place.is_some_and(|place| place.is_damaged.load(Acquire))
    }

    /// The mapping is read no more.
    pub(super) fn end(&mut self) {
        if let Some(place) = self.place.take() {
            place.generation.fetch_add(1, AcqRel);
            FREE.lock().unwrap_or_else(PoisonError::into_inner).push(place);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Takes back what was counted too much, so that the count cannot wrap.
fn too_many_mappings() -> io::Error {
    USED.fetch_sub(1, AcqRel);
    io::Error::other("there are too many mappings already")
}

impl Place {
    /// The place as long as it was in use all the while that it was looked at. That of a mapping which somebody reads is:
    /// who reads it holds it.
    fn bounds(&self) -> Option<(usize, usize)> {
        let before = self.generation.load(Acquire);
        let bounds = (self.begins.load(Relaxed), self.ends.load(Relaxed));
        fence(Acquire);
        let after = self.generation.load(Relaxed);
        (before == after && before % 2 == 1).then_some(bounds)
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut is_installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *is_installed {
        return Ok(());
    }
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: No new action is given, and `previous` has room for the present one.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), previous.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Known before the handler can run.
    // SAFETY: The call succeeded, so it was written.
    PREVIOUS.get_or_init(|| unsafe { previous.assume_init() });
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = handle;
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: All of it are numbers, masks and an optional function, for which zero is a value.
    let action = unsafe {
        let action = action.assume_init_mut();
        action.sa_sigaction = handler as libc::sighandler_t;
        // On the stack for signals, as the standard library sets it up for each thread.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigemptyset(&raw mut action.sa_mask);
        action
    };
    // SAFETY: The handler is of the form that `SA_SIGINFO` asks for, and does only what may be done in one.
    if unsafe { libc::sigaction(libc::SIGBUS, action, ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    *is_installed = true;
    Ok(())
}

/// Only atomics and system calls: no lock, no allocation, nothing that may panic.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: The place of this thread's error number; the code that was interrupted may be about to read it.
    let error_number = unsafe { *libc::__errno_location() };
    // SAFETY: With `SA_SIGINFO` the kernel gives a pointer to what it knows of the signal, or a caller that chains to us
    // does. `si_addr` is there for the codes that `is_missing` accepts.
    let missing_at = unsafe { is_missing((*info).si_code).then(|| (*info).si_addr().addr()) };
    if !missing_at.is_some_and(cover) {
        pass_on(signal, info, context);
    }
    // SAFETY: As above.
    unsafe { *libc::__errno_location() = error_number };
}

/// Whether the signal says that memory is not there: beyond the end of the file or because its medium failed, or
/// because the memory itself did. Not if somebody sent it.
fn is_missing(code: c_int) -> bool {
    code == libc::BUS_ADRERR || code == libc::BUS_MCEERR_AR
}

/// Puts zeros from the page of this address to the end of its mapping; `false` if it lies in none of ours.
fn cover(address: usize) -> bool {
    let used = USED.load(Acquire).min(MAPPINGS_MAX);
    for place in PLACES.iter().take(used) {
        let Some((begins, ends)) = place.bounds() else {
            continue;
        };
        if !(begins..ends).contains(&address) {
            continue;
        }
        // Before the zeros can be read, so that whoever copies them and then looks finds it set.
        place.is_damaged.store(true, Release);
        // It was asked for before the first mapping, so that it is known and only looked up.
        let page = address - address % rustix::param::page_size();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: From `page` to `ends` all is part of a mapping of ours, which stays where it is because the thread that was
        // interrupted is reading it. It keeps its place and its rights to be read, so every reference into it stays
        // good; only the bytes change, as `Mapping::new` accounts for.
        let covered = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(page),
                ends - page,
                libc::PROT_READ,
                flags,
                -1,
                0,
            )
        };
        return covered != libc::MAP_FAILED;
    }
    false
}

/// To whoever handled the signal before; if nobody did, it ends the process as it would have.
fn pass_on(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // SAFETY: Both may be called in a handler. The signal is held back until this one returns, and then ends the process.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    } else if previous.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0) {
        // SAFETY: It was installed as a function of this form, and gets what it would have got.
        unsafe {
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                core::mem::transmute(handler);
            handler(signal, info, context);
        }
    } else {
        // SAFETY: It was installed as a function of this form.
        unsafe {
            let handler: extern "C" fn(c_int) = core::mem::transmute(handler);
            handler(signal);
        }
    }
}
