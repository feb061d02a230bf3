# Names for what there is: `just --list`. What each does is said where it is.

# Formatting, lints and the tests of the crates.
quick:
    e2e/test quick

# All tests, or one suite of e2e/tests: `just test groups`.
test *suite:
    e2e/test {{ suite }}

# A local cluster, until Ctrl-C: `just local --brokers 3`.
local *arguments:
    cargo run --release --locked --bin weir -- local up {{ arguments }}

# A Kubernetes cluster of this machine's own, with Weir and the example.
up:
    e2e/up

# Takes that Kubernetes away.
down:
    e2e/down

# Formats the code.
fmt:
    cargo fmt --all

# Writes what comes of the scenarios' events now. Read the difference.
accept:
    WEIR_ACCEPT=1 cargo test --workspace --locked --lib

# Writes the definitions of the resources, and charts/install.yaml.
generate:
    cargo run --locked --package weir-crds --bin crdgen
    charts/render

# The crates' documentation, private items too.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --locked --no-deps --document-private-items

# The book of docs/, which wants mdBook.
book:
    docs/book
