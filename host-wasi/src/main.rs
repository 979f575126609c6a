//! `kachet-wasi`: keeps Fetch responses in a folder and reads records from it.
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use kachet_wasi::{Arguments, run};

fn main() -> ExitCode {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let done = Arguments::parse(std::env::args_os().skip(1))
        .and_then(|arguments| run(&arguments, &mut io::stdin().lock(), &mut out));
    let ended = done.and_then(|()| out.flush().map_err(kachet_wasi::Error::Output));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What was printed so far is whole lines.
            let _ = out.flush();
            eprintln!("kachet-wasi: {error}");
            ExitCode::from(error.status() as u8)
        }
    }
}
