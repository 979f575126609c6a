//! Kachet in WebAssembly: the cache without sockets and without files, for hosts that fetch bytes themselves.
//!
//! So far this crate shows that the core builds for wasm32 and hands it on; bindings for JavaScript and a
//! WebAssembly component come next.

pub use kachet_core as core;
