//! Runs programs for WASI: what they see of the host are the folders that they are given, their arguments and three streams.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use wasmtime::{Config, Engine, Linker, Module, OptLevel, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtxBuilder};

/// The most that a program may print that is listened to, in bytes.
const PRINTED_BYTES_MAX: usize = 64 << 20;

/// A folder of the host that a program is given.
#[derive(Clone, Debug)]
pub struct Folder {
    /// Where it is on the host.
    pub host: PathBuf,
    /// What the program calls it.
    pub guest: String,
    /// Whether the program may change it.
    pub may_change: bool,
}

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its arguments; the first is its name.
    pub arguments: Vec<String>,
    /// What it sees of the host's files.
    pub folders: Vec<Folder>,
    /// What it sees of the environment.
    pub variables: Vec<(String, String)>,
    /// The most linear memory that it gets, in bytes.
    pub memory_bytes: usize,
    /// How long it may run.
    pub time: Duration,
}

impl Default for Start {
    /// No arguments but a name, no folders, 256 MiB, a minute.
    fn default() -> Self {
        Self {
            arguments: vec!["program".to_owned()],
            folders: Vec::new(),
            variables: Vec::new(),
            memory_bytes: 256 << 20,
            time: Duration::from_secs(60),
        }
    }
}

/// What came of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it ended with.
    pub status: i32,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: String,
}

struct State {
    wasi: WasiP1Ctx,
    limits: StoreLimits,
}

/// A program that is compiled.
pub struct Program {
    engine: Engine,
    module: Module,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Compiles a module.
    pub fn compile(module: &[u8]) -> Result<Self> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .cranelift_opt_level(OptLevel::Speed);
        let engine = Engine::new(&config).map_err(|error| anyhow!("{error:?}"))?;
        let module = Module::new(&engine, module).map_err(|error| anyhow!("{error:?}"))?;
        Ok(Self { engine, module })
    }

    /// The modules that it imports anything from.
    pub fn imported_modules(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .module
            .imports()
            .map(|import| import.module().to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Runs it on streams in memory.
    pub fn run(&self, start: &Start, stdin: &[u8]) -> Result<Ended> {
        let (stdout, stderr) = (
            MemoryOutputPipe::new(PRINTED_BYTES_MAX),
            MemoryOutputPipe::new(PRINTED_BYTES_MAX),
        );
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdin(MemoryInputPipe::new(stdin.to_vec()))
            .stdout(stdout.clone())
            .stderr(stderr.clone());
        let status = self.run_with(start, wasi)?;
        Ok(Ended {
            status,
            stdout: stdout.contents().into(),
            stderr: String::from_utf8_lossy(&stderr.contents()).into_owned(),
        })
    }

    /// Runs it on the streams of this process; gives what it ended with.
    pub fn run_here(&self, start: &Start) -> Result<i32> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.inherit_stdio();
        self.run_with(start, wasi)
    }

    fn run_with(&self, start: &Start, mut wasi: WasiCtxBuilder) -> Result<i32> {
        wasi.args(&start.arguments).envs(&start.variables);
        for folder in &start.folders {
            let permissions = if folder.may_change {
                FsPerms::ReadWrite
            } else {
                FsPerms::ReadOnly
            };
            wasi.preopened_dir(&folder.host, &folder.guest, permissions)
                .map_err(|error| anyhow!("{}: {error:?}", folder.host.display()))?;
        }
        let limits = StoreLimitsBuilder::new().memory_size(start.memory_bytes).build();
        let state = State {
            wasi: wasi.build_p1(),
            limits,
        };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_epoch_deadline(1);
        let mut linker = Linker::new(&self.engine);
        p1::add_to_linker_sync(&mut linker, |state: &mut State| &mut state.wasi)
            .map_err(|error| anyhow!("{error:?}"))?;
        let clock = Clock::start(self.engine.clone(), start.time);
        let called = linker
            .instantiate(&mut store, &self.module)
            .and_then(|instance| instance.get_typed_func::<(), ()>(&mut store, "_start"))
            .and_then(|begin| begin.call(&mut store, ()));
        drop(clock);
        match called {
            Ok(()) => Ok(0),
            Err(error) => match error.downcast_ref::<I32Exit>() {
                Some(exit) => Ok(exit.0),
                None => bail!("{error:?}"),
            },
        }
    }
}

/// Ends a program after its time.
struct Clock(Option<std::sync::mpsc::Sender<()>>);

impl Clock {
    fn start(engine: Engine, time: Duration) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if stopped.recv_timeout(time) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        });
        Self(Some(stop))
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// Does what a runner of cargo does: the first argument is the module, the others are the program's. Gives what it ended
/// with.
pub fn run_as_runner(arguments: impl IntoIterator<Item = OsString>, start: Start) -> Result<i32> {
    let words = arguments.into_iter().map(OsString::into_string);
    let words: Result<Vec<String>, _> = words.collect();
    let arguments = words.map_err(|word| anyhow!("{} is no text", word.display()))?;
    let module = arguments.first().context("there is no module to run")?;
    let module = Path::new(module);
    let bytes = std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    Program::compile(&bytes)?.run_here(&Start { arguments, ..start })
}
