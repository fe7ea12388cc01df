//! `heirlock-callout`: `heirlock callout` as a program of its own, without all else that heirlock is. rpc.statd starts it for
//! each client's first lock, and what a program brings along is paid at each start.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    heirlock::callout::main(&arguments)
}
