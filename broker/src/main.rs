//! The `weir-broker` binary.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir_broker::keep_the_heap_small();
    weir_broker::run(weir_broker::config::Args::parse())
}
