//! The `heirlock` program.

fn main() -> std::process::ExitCode {
    heirlock::cli::main()
}
