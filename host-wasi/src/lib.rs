//! The cache over a folder, for programs that have nothing but files, such as those of WASI: a command, and what it is made of.
//!
//! The folder is a mount point, as the native host makes them. So records can be read from one where nothing else of Kachet
//! runs, and what is absorbed here is served by the native host once it has been validated.
//!
//! ```text
//! request, response ──absorb──▶ segments in the folder ──record, records, fetch──▶ JSON lines, a response
//! ```
//!
//! Nothing here can ask a broker. What is answered is what was absorbed, however long ago that was.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod error;
mod folder;
mod records;
mod segments;
mod store;

pub use self::arguments::{Arguments, Command, HELP, Place};
pub use self::commands::run;
pub use self::error::{Error, Status};
pub use self::folder::Folder;
pub use self::segments::{Access, FileReader, FolderStorage};
pub use self::store::{Store, Written};
