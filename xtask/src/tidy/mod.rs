//! Style as a test: the rules of the project that no other tool knows.

mod rules;
mod rust_text;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::capture;
use crate::project::root;

/// A file of the project that is text.
#[derive(Debug)]
pub(crate) struct SourceFile {
    /// Relative to the project's root, with forward slashes.
    path: String,
    text: String,
}

/// Checks every file of the project; fails with one line for each finding.
pub(crate) fn run() -> Result<()> {
    let files = read_files(&root())?;
    let findings = rules::check(&files);
    if !findings.is_empty() {
        bail!("{} findings:\n{}", findings.len(), findings.join("\n"));
    }
    eprintln!("{} files are tidy.", files.len());
    Ok(())
}

/// The text files that git tracks or would track; all that are not hidden or built where there is no git.
fn read_files(root: &Path) -> Result<Vec<SourceFile>> {
    let paths = match tracked_files(root) {
        Some(paths) => paths,
        None => walk(root)?,
    };
    let mut files = Vec::new();
    for path in paths {
        let full = root.join(&path);
        // A tracked file can be deleted in the work tree, and a link can point nowhere.
        let Ok(bytes) = fs::read(&full) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(SourceFile { path, text });
        }
    }
    Ok(files)
}

fn tracked_files(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let mut list = Command::new("git");
    list.current_dir(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = capture(&mut list).ok()?;
    Some(
        listed
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// Every file below `root` but for build output; without git, nothing else says what belongs to the project.
fn walk(root: &Path) -> Result<Vec<String>> {
    const NOT_OURS: [&str; 5] = ["target", "node_modules", "corpus", "artifacts", ".git"];
    let mut paths = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(root.join(&folder)).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            // A link to a folder is not followed: it could lead in a circle.
            if entry.file_type()?.is_dir() {
                if !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                    folders.push(path);
                }
            } else {
                paths.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_finds_the_projects_files_and_not_what_is_built() -> Result<()> {
        let paths = walk(&root())?;
        assert!(paths.iter().any(|path| path == "xtask/src/tidy/mod.rs"));
        assert!(paths.iter().any(|path| path == "Cargo.toml"));
        assert!(
            !paths
                .iter()
                .any(|path| path.starts_with("target/") || path.starts_with(".git/"))
        );
        Ok(())
    }
}
