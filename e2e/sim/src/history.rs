//! The common part of all simulations: histories by seed, rule violations, the search for a seed
//! that breaks a rule, and the program around them.

use std::fmt::{self, Debug, Display};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

/// A simulation that is played by seed. The same seed gives the same history.
pub trait Simulation: Sized {
    /// The rules.
    type Rule: ValueEnum + Copy + Debug + Send + Sync + 'static;
    /// The deliberate faults.
    type Mutation: ValueEnum + Copy + Send + Sync + 'static;
    /// The counters, which show that histories exercise what they should.
    type Counts: Tally;
    /// The arguments of `cargo run` that play it.
    const PROGRAM: &'static str;

    /// Runs the history of a seed with this deliberate fault; with `only`, no other rule counts.
    fn run(
        seed: u64,
        mutation: Option<Self::Mutation>,
        only: Option<Self::Rule>,
        traced: bool,
    ) -> History<Self>;
}

/// Counts that can be summed.
pub trait Tally: Debug + Default {
    /// Adds the counts of another history.
    fn add(&mut self, other: &Self);
}

/// A violation of a rule.
#[derive(Clone, Debug)]
pub struct Failure<R> {
    /// The rule.
    pub rule: R,
    /// What happened.
    pub detail: String,
    /// The time in milliseconds.
    pub at: u64,
}

impl<R: Debug> Display for Failure<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "breaks {:?} at {} ms: {}", self.rule, self.at, self.detail)
    }
}

/// The first violation in a history.
#[derive(Debug)]
pub struct Verdict<R> {
    /// The violation, if there was one.
    pub failure: Option<Failure<R>>,
    /// The only rule that counts, in tests of a single rule; `None` if all do.
    pub only: Option<R>,
    /// The current time, for [`Failure::at`].
    pub now: u64,
}

impl<R: PartialEq> Verdict<R> {
    /// The state before the first event.
    pub fn new(only: Option<R>) -> Self {
        Self { failure: None, only, now: 0 }
    }

    /// Records a violation. Only the first counts.
    pub fn broken(&mut self, rule: R, detail: impl FnOnce() -> String) {
        if self.failure.is_none() && self.only.as_ref().is_none_or(|only| *only == rule) {
            self.failure = Some(Failure { rule, detail: detail(), at: self.now });
        }
    }
}

/// The result of a history.
#[derive(Debug)]
pub struct History<S: Simulation> {
    /// The violation, if there was one.
    pub failure: Option<Failure<S::Rule>>,
    /// The counters.
    pub counts: S::Counts,
    /// The trace, line by line, if it was requested.
    pub trace: Vec<String>,
}

/// Plays histories; returns the sum of the counters, or the first violation with the command that
/// replays it.
///
/// # Errors
/// The first violation.
pub fn play<S: Simulation>(
    seeds: Range<u64>,
    mutation: Option<S::Mutation>,
    only: Option<S::Rule>,
    mut traced: Option<impl FnMut(&str)>,
) -> Result<S::Counts, String> {
    let mut counts = S::Counts::default();
    for seed in seeds {
        let history = S::run(seed, mutation, only, traced.is_some());
        if let Some(show) = &mut traced {
            history.trace.iter().for_each(|line| show(line));
        }
        counts.add(&history.counts);
        if let Some(failure) = history.failure {
            return Err(format!(
                "seed {seed} {failure}\nplay it again: {}",
                replay::<S>(seed, mutation)
            ));
        }
    }
    Ok(counts)
}

/// The first of these seeds whose history breaks the rule, with this deliberate fault. Other rules
/// do not count, and neither do the cores' assertions: when one of them ends a history, another
/// seed must show the violation.
pub fn first_to_break<S: Simulation>(
    rule: S::Rule,
    mutation: S::Mutation,
    mut seeds: Range<u64>,
) -> Option<u64> {
    let breaks = |seed: u64| S::run(seed, Some(mutation), Some(rule), false).failure.is_some();
    seeds.find(|seed| catch_unwind(AssertUnwindSafe(|| breaks(*seed))).unwrap_or(false))
}

/// The command that replays a seed.
pub fn replay<S: Simulation>(seed: u64, mutation: Option<S::Mutation>) -> String {
    let mutation = mutation.and_then(|mutation| mutation.to_possible_value());
    let mutation = mutation
        .map_or_else(String::new, |mutation| format!(" --mutation {}", mutation.get_name()));
    format!(
        "cargo run --release -p weir-sim --bin {} -- --seed {seed} --trace{mutation}",
        S::PROGRAM
    )
}

#[derive(Debug, Parser)]
#[command(about = "Plays simulated histories, one with its trace or many until one breaks a rule")]
struct Arguments<R: ValueEnum + Send + Sync + 'static, M: ValueEnum + Send + Sync + 'static> {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many consecutive seeds.
    #[arg(long, default_value_t = 1)]
    histories: u64,
    /// Print the trace.
    #[arg(long)]
    trace: bool,
    /// A deliberate fault.
    #[arg(long, value_enum)]
    mutation: Option<M>,
    /// The only rule to check.
    #[arg(long, value_enum)]
    rule: Option<R>,
}

/// The program that plays a simulation.
#[allow(clippy::print_stdout, reason = "it is what the program is for")]
pub fn program<S: Simulation>() -> ExitCode {
    let arguments = Arguments::<S::Rule, S::Mutation>::parse();
    let started = Instant::now();
    let seeds = arguments.seed..arguments.seed.saturating_add(arguments.histories);
    let show = arguments.trace.then_some(|line: &str| println!("{line}"));
    match play::<S>(seeds, arguments.mutation, arguments.rule, show) {
        Ok(counts) => {
            println!(
                "{} histories in {:.1?} keep the rules: {counts:?}",
                arguments.histories,
                started.elapsed()
            );
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}
