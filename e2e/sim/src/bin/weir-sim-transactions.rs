//! Plays histories of transactions: one with its trace, or many until one breaks a rule.
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use weir_sim::transactions::checks::{Counts, Rule};
use weir_sim::transactions::plan::Mutation;
use weir_sim::transactions::{replay, run};

#[derive(Debug, Parser)]
#[command(about = "Plays histories of simulated transactions and checks them against the rules")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    histories: u64,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
    /// Do something deliberately wrong.
    #[arg(long, value_enum)]
    mutation: Option<Mutation>,
    /// Look at no other rule than this.
    #[arg(long, value_enum)]
    rule: Option<Rule>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let started = Instant::now();
    let mut counts = Counts::default();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.histories) {
        let history = run(seed, arguments.mutation, arguments.rule, arguments.trace);
        for line in &history.trace {
            println!("{line}");
        }
        counts.add(&history.counts);
        if let Some(failure) = history.failure {
            println!("seed {seed} breaks {:?} at {} ms: {}", failure.rule, failure.at, failure.detail);
            println!("play it again: {}", replay(seed, arguments.mutation));
            return ExitCode::FAILURE;
        }
    }
    println!(
        "{} histories in {:.1?} keep the rules: {counts:?}",
        arguments.histories,
        started.elapsed()
    );
    ExitCode::SUCCESS
}
