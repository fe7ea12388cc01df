//! The `heirlock` program.

fn main() -> std::process::ExitCode {
    // rpc.statd waits for its callout, so that one sets nothing up that it doesn't need.
    match heirlock::callout::arguments(std::env::args_os()) {
        Some(arguments) => heirlock::callout::main(&arguments),
        None => heirlock::cli::main(),
    }
}
