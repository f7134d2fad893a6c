//! How a process says why it could not go on.

use std::process::ExitCode;

/// One line for people, with every cause; the code tells scripts.
pub fn report(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
