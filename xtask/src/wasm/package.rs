//! `cargo xtask wasm`: the npm package and the component, small enough, and importing nothing that hosts do not have.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{HOSTED, Toolchain, WASI};
use crate::process::{self, Tally};
use crate::project::{cargo, root, target_dir};
use crate::system::{self, Part};

/// What a module of `kachet-wasm` is built with.
#[derive(Debug, Clone, Copy)]
struct Variant {
    /// For people.
    what: &'static str,
    /// Where it goes, below `target/wasm`.
    folder: &'static str,
    features: &'static str,
    /// How large it may be by gzip, the JavaScript included, in bytes. What is measured, and little more, so that what makes it
    /// grow is seen.
    limit_bytes: u32,
}

const ALL_CODECS: Variant = Variant {
    what: "npm package, all codecs",
    folder: "all-codecs",
    features: "javascript,gzip,lz4,snappy,zstd",
    limit_bytes: 112 * 1024,
};
const WITHOUT_ZSTD: Variant = Variant {
    what: "npm package, without zstd",
    folder: "without-zstd",
    features: "javascript,gzip,lz4,snappy",
    limit_bytes: 100 * 1024,
};
const COMPONENT: Variant = Variant {
    what: "component, all codecs",
    folder: "component",
    features: "component,gzip,lz4,snappy,zstd",
    limit_bytes: 104 * 1024,
};

const WASI_PROGRAM: Variant = Variant {
    what: "program for WASI",
    folder: "wasi",
    features: "",
    limit_bytes: 195 * 1024,
};

/// What browsers, Workers, Node and wasmtime have by now. In front of the component's encoding, not behind it.
const WASM_OPT: [&str; 13] = [
    "-Oz",
    "--converge",
    // What is called in one place is inlined only if it is small: code of many functions that are much alike repeats itself more, and
    // repetition is what gzip takes out.
    "--one-caller-inline-max-function-size=20",
    // Rust puts the end of the stack at address 0, so nothing stands there that is ever pointed at.
    "--low-memory-unused",
    // What is alike stands together.
    "--reorder-functions-by-name",
    "--enable-bulk-memory",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-mutable-globals",
    "--enable-multivalue",
    "--enable-reference-types",
    "--strip-debug",
    "--strip-producers",
];

/// What the npm package begins with, one for each platform, and that of which the size is measured.
const PLATFORMS: [&str; 3] = ["node.js", "web.js", LOADED];
const LOADED: &str = "workerd.js";

/// The examples, and where each looks for the npm package.
const EXAMPLES: [(&str, &str); 2] = [("browser", "kachet"), ("worker", "node_modules/kachet")];

/// Builds everything.
pub(super) fn build(toolchain: Toolchain) -> Result<()> {
    system::require(&[Part::Node])?;
    let tools = Tools::install()?;
    javascript(toolchain, &tools, ALL_CODECS, &package_dir())?;
    for (example, package) in EXAMPLES {
        assemble(example, package)?;
    }
    let unpublished = target_dir().join("wasm").join(WITHOUT_ZSTD.folder);
    javascript(toolchain, &tools, WITHOUT_ZSTD, &unpublished.join("package"))?;
    component(toolchain, &tools)?;
    wasi_program(toolchain, &tools)
}

/// The npm package.
pub(super) fn package_dir() -> PathBuf {
    target_dir().join("npm").join("kachet")
}

/// The component.
pub(super) fn component_path() -> PathBuf {
    target_dir().join("wasm").join("kachet.component.wasm")
}

/// Puts an example and the package together into `target/npm/NAME`, from where it runs as it is.
fn assemble(example: &str, package: &str) -> Result<()> {
    let folder = target_dir().join("npm").join(example);
    empty(&folder)?;
    for file in files_in(&root().join("host-wasm/examples").join(example), |_| true)? {
        copy(&file, &folder.join(file.file_name().unwrap_or_default()))?;
    }
    install_package(&folder.join(package))
}

/// Copies the npm package to where it is looked for.
fn install_package(folder: &Path) -> Result<()> {
    for file in files_in(&package_dir(), |_| true)? {
        copy(&file, &folder.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(())
}

/// Whether the npm package is there.
pub(super) fn is_made() -> bool {
    package_dir().join("package.json").is_file()
}

/// A folder in which the package and its tests lie together.
fn test_folder() -> Result<PathBuf> {
    let folder = target_dir().join("npm").join("test");
    empty(&folder)?;
    install_package(&folder.join("node_modules/kachet"))?;
    for file in files_in(&root().join("host-wasm/js/test"), |_| true)? {
        copy(&file, &folder.join(file.file_name().unwrap_or_default()))?;
    }
    Ok(folder)
}

/// Absorbs and evicts so many batches in Node; an error if memory grows.
pub(super) fn soak(cycles: u32) -> Result<()> {
    let mut node = Command::new("node");
    node.arg("soak.mjs").env("CYCLES", cycles.to_string());
    process::run(node.current_dir(test_folder()?))
}

/// Runs the tests of the npm package in Node; counts them.
pub(super) fn test_in_node() -> Result<Tally> {
    let folder = test_folder()?;
    let url = |path: &str| format!("file://{}", root().join(path).display());
    let mut node = Command::new("node");
    node.args(["--test", "--test-reporter=tap", "cache.test.mjs"])
        .env("KACHET_FIXTURES", url("core/tests/fixtures/"))
        .env("KACHET_ANSWERS", url("host-wasm/tests/answers.txt"))
        .current_dir(&folder);
    process::run_node_tests(&mut node)
}

/// What npm brings.
#[derive(Debug)]
pub(super) struct Tools {
    modules: PathBuf,
}

impl Tools {
    /// Where they are, fetched if need be.
    pub(super) fn install() -> Result<Self> {
        let source = root().join("host-wasm/js/tools");
        let folder = target_dir().join("npm-tools");
        let lock = "package-lock.json";
        let wanted = fs::read(source.join(lock))?;
        // Written last, so that what an earlier run left half done is done again.
        let done = folder.join("installed.json");
        if fs::read(&done).ok().as_ref() != Some(&wanted) {
            fs::create_dir_all(&folder)?;
            for name in ["package.json", lock] {
                copy(&source.join(name), &folder.join(name))?;
            }
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
            process::run(npm.current_dir(&folder))?;
            fs::write(&done, wanted)?;
        }
        let modules = folder.join("node_modules");
        Ok(Self { modules })
    }

    /// Where packages lie.
    pub(super) fn modules(&self) -> &Path {
        &self.modules
    }

    fn command(&self, name: &str) -> Command {
        Command::new(self.modules.join(".bin").join(name))
    }

    fn optimise(&self, module: &Path, optimised: &Path) -> Result<()> {
        let mut wasm_opt = self.command("wasm-opt");
        wasm_opt.args(WASM_OPT).arg(module).arg("-o").arg(optimised);
        process::run(&mut wasm_opt)
    }
}

/// Builds `kachet-wasm` and gives the module.
fn module(toolchain: Toolchain, variant: Variant) -> Result<PathBuf> {
    let mut compile = toolchain.cargo();
    compile
        .args(["build", "--profile", "wasm", "--target", HOSTED])
        .args(["--package", "kachet-wasm", "--no-default-features"])
        .args(["--features", variant.features]);
    toolchain.build_core_along(&mut compile);
    process::run(&mut compile)?;
    let built = toolchain.target_dir().join(HOSTED).join("wasm/kachet_wasm.wasm");
    // The next variant is built into the same place.
    let kept = target_dir()
        .join("wasm")
        .join(variant.folder)
        .join("kachet_wasm.wasm");
    copy(&built, &kept)?;
    Ok(kept)
}

/// The part of xtask that takes long to build.
fn packager<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<()> {
    let mut packager = cargo();
    packager.args(["run", "--quiet", "--package", "xtask-wasm", "--"]);
    process::run(packager.args(arguments))
}

fn javascript(toolchain: Toolchain, tools: &Tools, variant: Variant, package: &Path) -> Result<()> {
    let module = module(toolchain, variant)?;
    let work = module.with_file_name("work");
    let raw = work.join("src");
    empty(&work)?;
    packager([
        OsStr::new("bind"),
        module.as_os_str(),
        raw.as_os_str(),
        OsStr::new("kachet_wasm"),
    ])?;
    compile(tools, &work)?;
    empty(package)?;
    bundle(tools, &work, package)?;
    for file in files_in(&work.join("out"), |name| is_named(name, ".d.ts"))? {
        move_into(&file, package)?;
    }
    copy(&raw.join("kachet_wasm.d.ts"), &package.join("kachet_wasm.d.ts"))?;
    let optimised = package.join("kachet_wasm_bg.wasm");
    tools.optimise(&raw.join("kachet_wasm_bg.wasm"), &optimised)?;
    packager([
        OsStr::new("imports"),
        optimised.as_os_str(),
        OsStr::new("--allow"),
        OsStr::new("./kachet_wasm_bg.js"),
    ])?;
    let here = root().join("host-wasm");
    copy(&here.join("js/npm.json"), &package.join("package.json"))?;
    copy(&here.join("README.md"), &package.join("README.md"))?;
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        copy(&root().join(licence), &package.join(licence))?;
    }
    // What a Worker loads; in Node and in browsers one file of the same size stands in the place of its own.
    let loaded = files_in(package, |name| {
        let other_platform = name != LOADED && PLATFORMS.contains(&name);
        is_named(name, ".wasm") || (is_named(name, ".js") && !other_platform)
    })?;
    measure(toolchain, variant, &loaded)
}

/// The compiled JavaScript as what platforms load.
fn bundle(tools: &Tools, work: &Path, package: &Path) -> Result<()> {
    let out = work.join("out");
    copy(&work.join("src/kachet_wasm.js"), &out.join("kachet_wasm.js"))?;
    // What the platforms share becomes one file, which gzip makes smaller than many.
    let mut bundle = tools.command("esbuild");
    bundle.args([
        "--bundle",
        "--splitting",
        "--minify",
        "--format=esm",
        "--platform=neutral",
    ]);
    bundle.args(["--external:node:fs", "--external:./kachet_wasm_bg.wasm"]);
    bundle.args(["--chunk-names=kachet", "--log-level=warning"]);
    bundle.args(PLATFORMS.map(|name| out.join(name)));
    bundle.arg(format!("--outdir={}", package.join("js").display()));
    process::run(&mut bundle)?;
    for file in files_in(&package.join("js"), |_| true)? {
        move_into(&file, package)?;
    }
    Ok(fs::remove_dir(package.join("js"))?)
}

/// TypeScript to JavaScript and to declarations with their comments.
fn compile(tools: &Tools, work: &Path) -> Result<()> {
    let source = root().join("host-wasm/js");
    for file in files_in(&source.join("src"), |name| is_named(name, ".ts"))? {
        copy(
            &file,
            &work.join("src").join(file.file_name().unwrap_or_default()),
        )?;
    }
    copy(&source.join("tsconfig.json"), &work.join("tsconfig.json"))?;
    // Decides that the files are modules.
    copy(&source.join("npm.json"), &work.join("package.json"))?;
    let types = tools.modules().join("@types");
    let mut tsc = tools.command("tsc");
    tsc.args(["--project", "."])
        .arg("--typeRoots")
        .arg(types)
        .current_dir(work);
    process::run(&mut tsc)
}

fn component(toolchain: Toolchain, tools: &Tools) -> Result<()> {
    let module = module(toolchain, COMPONENT)?;
    let optimised = module.with_file_name("optimised.wasm");
    tools.optimise(&module, &optimised)?;
    let component = component_path();
    packager([
        OsStr::new("component"),
        optimised.as_os_str(),
        component.as_os_str(),
    ])?;
    packager([
        OsStr::new("imports"),
        component.as_os_str(),
        OsStr::new("--allow"),
        OsStr::new("kachet:cache/"),
    ])?;
    measure(toolchain, COMPONENT, &[component])
}

/// The program for WASI. It has a std, so it needs no binding and no encoding.
fn wasi_program(toolchain: Toolchain, tools: &Tools) -> Result<()> {
    let mut compile = toolchain.cargo();
    compile
        .args(["build", "--profile", "wasm", "--target", WASI])
        .args(["--package", "kachet-wasi"])
        .env("CARGO_ENCODED_RUSTFLAGS", toolchain.module_flags());
    process::run(&mut compile)?;
    let built = toolchain.target_dir().join(WASI).join("wasm/kachet-wasi.wasm");
    let program = target_dir().join("wasm").join("kachet-wasi.wasm");
    tools.optimise(&built, &program)?;
    packager([
        OsStr::new("imports"),
        program.as_os_str(),
        OsStr::new("--allow"),
        OsStr::new("wasi_snapshot_preview1"),
    ])?;
    measure(toolchain, WASI_PROGRAM, &[program])
}

fn measure(toolchain: Toolchain, variant: Variant, files: &[PathBuf]) -> Result<()> {
    let limit_bytes = if toolchain.has_core_source() {
        variant.limit_bytes
    } else {
        eprintln!(
            "With the source of Rust's core library it becomes smaller: `rustup component add rust-src`."
        );
        variant.limit_bytes / 8 * 9
    };
    let limit = limit_bytes.to_string();
    let arguments = ["measure", variant.what, &limit].map(OsStr::new);
    packager(
        arguments
            .into_iter()
            .chain(files.iter().map(|file| file.as_os_str())),
    )
}

/// Whether a name has this ending, in small letters as everything here is written.
fn is_named(name: &str, ending: &str) -> bool {
    name.ends_with(ending)
}

/// The files of a folder, in order of their names.
fn files_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if path.is_file() && wanted(&name) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn move_into(file: &Path, folder: &Path) -> Result<()> {
    let to = folder.join(file.file_name().unwrap_or_default());
    fs::rename(file, &to).with_context(|| format!("cannot move {} to {}", file.display(), to.display()))
}

/// An empty folder.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
