//! Tells the tests for which platform they were built.
#![allow(clippy::print_stdout, reason = "this is how build scripts speak")]

fn main() {
    let triple = std::env::var("TARGET").expect("cargo sets TARGET for build scripts");
    println!("cargo::rustc-env=HOST_TRIPLE={triple}");
}
