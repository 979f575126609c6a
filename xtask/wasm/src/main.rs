//! Makes packages of WebAssembly modules; `cargo xtask wasm` calls it.
//!
//! It is a program of its own because what it builds on takes minutes to build, and few chores need it.
#![forbid(unsafe_code)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use flate2::Compression;
use flate2::write::GzEncoder;
use wasm_bindgen_cli_support::Bindgen;
use wasmparser::{Parser as WasmParser, Payload};
use wit_component::ComponentEncoder;

#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the JavaScript and the TypeScript types that go with a module built with wasm-bindgen, and the module.
    Bind {
        /// The module as cargo built it.
        module: PathBuf,
        /// Where everything goes.
        folder: PathBuf,
        /// What the files are called.
        name: String,
    },
    /// Make a component of a module built with wit-bindgen.
    Component {
        /// The module.
        module: PathBuf,
        /// The component.
        component: PathBuf,
    },
    /// Print the size of files, plain and by gzip, and fail if together they are larger than allowed.
    Measure {
        /// What they are.
        what: String,
        /// How large they may be by gzip, in bytes.
        limit_bytes: usize,
        /// The files.
        files: Vec<PathBuf>,
    },
    /// Fail if a module or a component imports anything but what is allowed.
    Imports {
        /// The module or the component.
        file: PathBuf,
        /// Beginnings of the names of modules and interfaces that may be imported.
        #[arg(long)]
        allow: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Options::parse().command {
        Command::Bind { module, folder, name } => bind(&module, &folder, &name),
        Command::Component { module, component } => encode(&module, &component),
        Command::Measure {
            what,
            limit_bytes,
            files,
        } => measure(&what, limit_bytes, &files),
        Command::Imports { file, allow } => imports(&file, &allow),
    }
}

fn bind(module: &Path, folder: &Path, name: &str) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(module).out_name(name).typescript(true);
    // Without a default path, `init()` without an argument fails.
    bindgen.web(true)?.omit_default_module_path(false);
    bindgen
        .generate(folder)
        .with_context(|| format!("cannot bind {}", module.display()))
}

fn encode(module: &Path, component: &Path) -> Result<()> {
    let bytes = ComponentEncoder::default()
        .validate(true)
        .module(&read(module)?)?
        .encode()
        .with_context(|| format!("cannot make a component of {}", module.display()))?;
    fs::write(component, bytes).with_context(|| format!("cannot write {}", component.display()))
}

fn measure(what: &str, limit_bytes: usize, files: &[PathBuf]) -> Result<()> {
    let (mut plain, mut packed) = (0, 0);
    for file in files {
        let bytes = read(file)?;
        let gzipped = gzipped_bytes(&bytes)?;
        let name = file.file_name().unwrap_or_default().display();
        println!("  {name:32} {:>8} bytes, {gzipped:>7} by gzip", bytes.len());
        plain += bytes.len();
        packed += gzipped;
    }
    println!("{what}: {plain} bytes, {packed} by gzip of {limit_bytes} allowed");
    ensure!(
        packed <= limit_bytes,
        "{what}: {packed} bytes by gzip, {limit_bytes} are allowed"
    );
    Ok(())
}

fn gzipped_bytes(bytes: &[u8]) -> Result<usize> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.len())
}

/// What the module or the component itself imports, not what modules inside of a component get from it.
fn imports(file: &Path, allow: &[String]) -> Result<()> {
    let bytes = read(file)?;
    let mut depth = 0_usize;
    for payload in WasmParser::new(0).parse_all(&bytes) {
        let mut names = Vec::new();
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ImportSection(section) if depth == 0 => {
                for import in section.into_imports() {
                    names.push(import?.module.to_owned());
                }
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    names.push(import?.name.name.to_owned());
                }
            }
            _ => {}
        }
        for name in names {
            if !allow.iter().any(|allowed| name.starts_with(allowed.as_str())) {
                bail!("{} imports `{name}`, which hosts do not have", file.display());
            }
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
