//! WebAssembly: what is made of the project for it, and its targets: from rustup where it can fetch them, else built from Debian's source of Rust.

mod inside;
mod package;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::process::{self, Tally, capture, find_program};
use crate::project::{cargo, forget_our_own_build, root, target_dir};
use crate::system;

/// For hosts: browsers, edge workers, wasmtime.
const HOSTED: &str = "wasm32-unknown-unknown";
/// Has no std at all, so what builds for it is `no_std`; `HOSTED` has a std of stubs and proves nothing.
const BARE: &str = "wasm32v1-none";
/// Has files and a std, so that programs and tests run there.
const WASI: &str = "wasm32-wasip1";
const TARGETS: [&str; 3] = [HOSTED, BARE, WASI];
/// The name under which Debian's toolchain is known to rustup.
const DEBIAN: &str = "debian-web";

/// Cycles of the soak that every test run does: a leak of five bytes a cycle shows.
const SHORT_SOAK_CYCLES: u32 = 60_000;

/// How long rustup may try to fetch a target.
const RUSTUP_LIMIT: Duration = Duration::from_mins(3);
/// How long the fallback may take: about 250 MB of packages and one build of std.
const FALLBACK_LIMIT: Duration = Duration::from_mins(15);

/// A toolchain that has the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The one that runs this.
    Active,
    /// Debian's, as `rustup run debian-web`.
    Debian,
}

/// Finds a toolchain with the targets, fetching or building them where need be. Ok(Err(why)) says what is missing and how to
/// get it.
pub(crate) fn ensure() -> Result<Result<Toolchain, String>> {
    if has_targets(&active_rustc()) {
        return Ok(Ok(Toolchain::Active));
    }
    let by_hand = format!("rustup target add {}", TARGETS.join(" "));
    if find_program("rustup").is_none() {
        return Ok(Err(format!(
            "this Rust lacks {} — install with rustup (https://rustup.rs), then `{by_hand}`",
            TARGETS.join(", ")
        )));
    }
    if debian_is_linked() && has_targets(Path::new("/usr/bin/rustc")) {
        return Ok(Ok(Toolchain::Debian));
    }
    let mut add = Command::new("rustup");
    // A failure is expected where there is no way to its server; one line tells enough of it.
    add.args(["target", "add"])
        .args(TARGETS)
        .env("RUST_BACKTRACE", "0");
    match process::run_within(&mut add, RUSTUP_LIMIT) {
        Ok(()) if has_targets(&active_rustc()) => return Ok(Ok(Toolchain::Active)),
        Ok(()) => eprintln!("rustup added the targets to another toolchain than the active one"),
        Err(error) => eprintln!("{error:#}"),
    }
    if !system::can_install() {
        return Ok(Err(format!(
            "the targets {} are missing — install with `{by_hand}`, or on Debian as root with `xtask/install-wasm-toolchain.sh`",
            TARGETS.join(", ")
        )));
    }
    eprintln!("rustup cannot fetch the targets: they are built from Debian's source of Rust instead.");
    let mut script = Command::new("bash");
    script
        .arg(root().join("xtask").join("install-wasm-toolchain.sh"))
        .args(TARGETS);
    process::run_within(&mut script, FALLBACK_LIMIT)?;
    if !(debian_is_linked() && has_targets(Path::new("/usr/bin/rustc"))) {
        bail!("xtask/install-wasm-toolchain.sh ended well, yet the toolchain {DEBIAN} lacks the targets");
    }
    Ok(Ok(Toolchain::Debian))
}

/// Builds what must build for WebAssembly by `toolchain`; counts each build.
pub(crate) fn build(toolchain: Toolchain) -> Tally {
    let builds: [&[&str]; 3] = [
        &[
            "--target",
            BARE,
            "--package",
            "kachet-core",
            "--no-default-features",
        ],
        &["--target", BARE, "--package", "kachet-core"],
        // `kachet-wasm` is a module only with one of its features, with which the packages are made.
        &["--target", HOSTED, "--package", "kachet-core"],
    ];
    let mut tally = Tally::default();
    for arguments in builds {
        let mut build = toolchain.cargo();
        build.arg("build").args(arguments);
        match process::run(&mut build) {
            Ok(()) => tally.passed += 1,
            Err(error) => {
                eprintln!("error: {error:#}");
                tally.failed += 1;
            }
        }
    }
    tally
}

/// Makes the npm package and the component by `toolchain`, and tests the package in Node.
pub(crate) fn package_and_test(toolchain: Toolchain) -> Result<Tally> {
    package::build(toolchain)?;
    let mut tally = package::test_in_node()?;
    package::soak(SHORT_SOAK_CYCLES)?;
    tally.passed += 1;
    Ok(tally)
}

/// Runs the tests of the crates that run anywhere inside of wasmtime, by `toolchain`.
pub(crate) fn test_inside(toolchain: Toolchain) -> Result<Tally> {
    inside::test_behind_the_others(toolchain)
}

/// The same by whichever toolchain there is; an error if a test fails.
pub(crate) fn test() -> Result<()> {
    let toolchain = match ensure()? {
        Ok(toolchain) => toolchain,
        Err(missing) => bail!("{missing}"),
    };
    let Tally {
        passed,
        failed,
        skipped,
    } = inside::test(toolchain)?;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} tests failed");
    }
    Ok(())
}

/// Builds the program that measures lookups, natively and for WASI, and what runs it there.
pub(crate) fn build_lookups(toolchain: Toolchain) -> Result<()> {
    inside::build_lookups(toolchain)
}

/// Has the npm package absorb and evict so many batches in Node, and fails if its memory grows. Makes the package where it is not
/// there.
pub(crate) fn soak(cycles: u32) -> Result<()> {
    if !package::is_made() {
        package()?;
    }
    package::soak(cycles)
}

/// Fetches what npm brings: what makes the packages, and workerd, which runs an example in the tests.
pub(crate) fn install_tools() -> Result<()> {
    system::require(&[system::Part::Node])?;
    package::Tools::install().map(drop)
}

/// Makes the npm package, its examples and the component.
pub(crate) fn package() -> Result<()> {
    match ensure()? {
        Ok(toolchain) => package::build(toolchain),
        Err(missing) => bail!("{missing}"),
    }
}

impl Toolchain {
    /// Where it builds. Two toolchains in one target folder would take each other's files for stale.
    fn target_dir(self) -> PathBuf {
        match self {
            Self::Active => target_dir(),
            Self::Debian => target_dir().join(DEBIAN),
        }
    }

    /// Flags of rustc for small modules, in which nothing of this machine's folders stands.
    fn module_flags(self) -> String {
        let registry = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cargo"))
        });
        let mut sources = vec![(root(), "kachet")];
        sources.extend(registry.map(|folder| (folder.join("registry/src"), "crates")));
        sources.push((self.sysroot().join("lib/rustlib/src/rust"), "rust"));
        // Measured: 0 and 50 make modules two hundredths larger by gzip, and LLVM's own choice a tenth; loading values ahead of where they
        // are needed half a hundredth. Not to heed `#[inline]` saves another half, and a fifth of the speed at which records are read.
        remapped(&sources) + "\u{1f}-Cllvm-args=-inline-threshold=25 -enable-load-pre=false"
    }

    /// Whether the source of Rust's core library is there, as it is with Debian's toolchain, and with rustup's once
    /// `rustup component add rust-src` has fetched it.
    pub(crate) fn has_core_source(self) -> bool {
        self.sysroot().join("lib/rustlib/src/rust/library/core").is_dir()
    }

    /// Has `compile` build the core library along with a module, as small as its source allows and without a word for any panic: a
    /// tenth of a module is what it saves. The library that comes with a toolchain is made to be quick.
    pub(crate) fn build_core_along(self, compile: &mut Command) {
        let mut flags = self.module_flags();
        if self.has_core_source() {
            // A stable compiler takes what is not stable only so. What comes of it is tested as any other module is.
            compile
                .env("RUSTC_BOOTSTRAP", "1")
                .args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=optimize_for_size"]);
            flags.push_str("\u{1f}-Zunstable-options\u{1f}-Cpanic=immediate-abort");
        }
        compile.env("CARGO_ENCODED_RUSTFLAGS", flags);
    }

    /// Where the compiler and its libraries lie.
    fn sysroot(self) -> PathBuf {
        let rustc = match self {
            Self::Active => active_rustc(),
            Self::Debian => PathBuf::from("/usr/bin/rustc"),
        };
        let sysroot = capture(Command::new(rustc).args(["--print", "sysroot"])).unwrap_or_default();
        PathBuf::from(sysroot.trim())
    }

    /// This toolchain's cargo, called in the workspace's root.
    pub(crate) fn cargo(self) -> Command {
        match self {
            Self::Active => cargo(),
            Self::Debian => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", DEBIAN, "cargo"]).current_dir(root());
                forget_our_own_build(&mut cargo);
                // A cargo that runs xtask tells it of its own toolchain; Debian's must not hear of that.
                for name in [
                    "RUSTUP_TOOLCHAIN",
                    "RUSTC",
                    "RUSTDOC",
                    "CARGO",
                    "RUSTC_WRAPPER",
                    "RUSTC_WORKSPACE_WRAPPER",
                ] {
                    cargo.env_remove(name);
                }
                cargo.env("CARGO_TARGET_DIR", self.target_dir());
                cargo
            }
        }
    }
}

/// The sources by names that are the same everywhere, as rustc takes it from the environment.
fn remapped(sources: &[(PathBuf, &str)]) -> String {
    let flag = |(from, to): &(PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    sources.iter().map(flag).collect::<Vec<_>>().join("\u{1f}")
}

/// The rustc beside the cargo that runs this.
fn active_rustc() -> PathBuf {
    let beside = std::env::var_os("CARGO").map(|cargo| Path::new(&cargo).with_file_name("rustc"));
    beside
        .filter(|rustc| rustc.is_file())
        .unwrap_or_else(|| "rustc".into())
}

/// Whether `rustc` has the standard library of each target.
fn has_targets(rustc: &Path) -> bool {
    let Ok(sysroot) = capture(Command::new(rustc).args(["--print", "sysroot"])) else {
        return false;
    };
    let libraries = Path::new(sysroot.trim()).join("lib").join("rustlib");
    TARGETS.iter().all(|target| {
        let files = std::fs::read_dir(libraries.join(target).join("lib"));
        files.is_ok_and(|mut files| files.any(|file| file.is_ok_and(|file| is_rlib(&file.path()))))
    })
}

fn is_rlib(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rlib")
}

fn debian_is_linked() -> bool {
    let toolchains = capture(Command::new("rustup").args(["toolchain", "list"]));
    toolchains.is_ok_and(|list| {
        list.lines()
            .any(|line| line.split_whitespace().next() == Some(DEBIAN))
    })
}
