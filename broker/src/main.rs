//! The `weir-broker` binary.

use clap::Parser;
use weir_broker::config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    weir_broker::keep_the_heap_small();
    let mut words = std::env::args_os();
    let program = words.next();
    if words.next().is_some_and(|word| word == config::STRAYS) {
        return weir_broker::strays(&config::StraysArgs::parse_from(
            program.into_iter().chain(words),
        ));
    }
    weir_broker::run(config::Args::parse())
}
