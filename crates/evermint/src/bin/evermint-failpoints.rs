//! The `evermint` program of the chaos tests: it stops where it is told to. Never released.

fn main() -> std::process::ExitCode {
    evermint::cli::main()
}
