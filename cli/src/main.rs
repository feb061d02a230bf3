//! The `weir` binary: a local cluster with one command. It runs the controller and the brokers of
//! that cluster by executing itself.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Weir: the partitioned, replicated log of Apache Kafka, for Kubernetes and for this machine.
#[derive(Debug, Parser)]
#[command(name = "weir", version)]
struct Weir {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a cluster on this machine.
    Local(weir_operator::local::command::Local),
    /// Run one broker, as `weir-broker` does.
    Broker(Box<weir_broker::config::Args>),
    /// Run the controller of a local cluster; `weir local` does it.
    #[command(hide = true)]
    LocalController(weir_operator::local::controller::Args),
}

fn main() -> ExitCode {
    weir_broker::keep_the_heap_small();
    weir_operator::local::detach_if_child();
    let result = match Weir::parse().command {
        Command::Broker(args) => return weir_broker::run(*args),
        Command::Local(local) => block_on(weir_operator::local::command::run(local)),
        Command::LocalController(args) => block_on(weir_operator::local::controller::run(args)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn block_on(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(future)
}
