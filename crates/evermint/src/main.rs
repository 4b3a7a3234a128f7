//! The `evermint` program.

fn main() -> std::process::ExitCode {
    evermint::cli::main()
}
