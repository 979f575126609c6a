//! What benchmarks put into a cache and ask of it, without anything that they compare it with: small enough to be built for
//! release and run under callgrind in CI, see `src/bin/instructions.rs`.

pub mod answers;
pub mod filled;
