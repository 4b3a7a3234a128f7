# The front door. `just` lists what there is; checks only read, fixes rewrite.

_default:
    @just --list

# A whole cluster on loopback, to look at and to break
dev *ARGS:
    cargo run --release -p evermint -- dev {{ARGS}}

# Every test
test *ARGS:
    cargo nextest run --workspace {{ARGS}}

# Format, lints and docs, as CI checks them
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

# Rewrites what can be rewritten
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty

# The simulation over many seeds, e.g. `just sim 1000000`
sim SEEDS="20000":
    SEEDS={{SEEDS}} cargo nextest run --release -p evermint-sim --no-capture

# Who may bring what into the tree
deny:
    cargo deny check bans licenses sources

# The same for known weaknesses, where the advisory database can be fetched
advisories:
    cargo deny check advisories

# A CycloneDX document of what each crate is made of, beside its Cargo.toml (cargo install cargo-cyclonedx)
sbom:
    cargo cyclonedx --format json --target x86_64-unknown-linux-gnu

# Whatever bytes come from outside, longer than CI does: `just fuzz 600`
fuzz SECONDS="60":
    EVERMINT_FUZZ_SECONDS={{SECONDS}} EVERMINT_FUZZ_SEED=$(date +%s) cargo nextest run --workspace --no-fail-fast fuzz_

# The benchmarks of benches/README.md
bench:
    cargo run --release -p evermint-benches

# Real processes under seeded faults: `just chaos SECONDS SEED REPLICAS`; `just chaos 60 7 3 --only process`
chaos *ARGS:
    cargo build --profile chaos -p evermint --features failpoints --bin evermint-failpoints
    cargo build --profile chaos -p evermint-chaos
    EVERMINT_BIN=${CARGO_TARGET_DIR:-target}/chaos/evermint-failpoints ${CARGO_TARGET_DIR:-target}/chaos/chaos {{ARGS}}

# Planted defects, each caught by the promise that it breaks
bugs *ARGS:
    EVERMINT_CHAOS_BUGS=1 cargo nextest run -p evermint-chaos --test bugs {{ARGS}}

# A number of faults of some kinds: `just campaign 0 7 5 kills --count 300`, `just campaign 0 7 3 --proxies power`
campaign *ARGS:
    cargo build -p evermint --features failpoints --bin evermint-failpoints
    cargo build -p evermint-chaos
    EVERMINT_BIN=${CARGO_TARGET_DIR:-target}/debug/evermint-failpoints ${CARGO_TARGET_DIR:-target}/debug/chaos {{ARGS}}
