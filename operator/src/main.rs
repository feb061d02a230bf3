//! The `weir-operator` binary.

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    // The allocator's arena is mostly empty; with huge pages it would take some 10 MB more.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    weir_operator::kubernetes::run(weir_operator::kubernetes::args::Args::parse())
}
