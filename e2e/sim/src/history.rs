//! What every simulation has: histories by seed, the rule that one breaks, the search for a seed
//! that breaks a rule, and the program around it.

use std::fmt::{self, Debug, Display};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

/// Something that is played by seeds. The same seed is the same history.
pub trait Simulation: Sized {
    /// What must hold.
    type Rule: ValueEnum + Copy + Debug + Send + Sync + 'static;
    /// What can be done wrong on purpose.
    type Mutation: ValueEnum + Copy + Send + Sync + 'static;
    /// What is counted, to see that histories are about something.
    type Counts: Tally;
    /// What `cargo run` takes to play it.
    const PROGRAM: &'static str;

    /// Runs the history of a seed, with this deliberately wrong; with `only`, no other rule counts.
    fn run(
        seed: u64,
        mutation: Option<Self::Mutation>,
        only: Option<Self::Rule>,
        traced: bool,
    ) -> History<Self>;
}

/// Counts that can be summed.
pub trait Tally: Debug + Default {
    /// Adds those of another history.
    fn add(&mut self, other: &Self);
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Failure<R> {
    /// Which.
    pub rule: R,
    /// How.
    pub detail: String,
    /// When, in milliseconds.
    pub at: u64,
}

impl<R: Debug> Display for Failure<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "breaks {:?} at {} ms: {}", self.rule, self.at, self.detail)
    }
}

/// The first rule that a history breaks.
#[derive(Debug)]
pub struct Verdict<R> {
    /// It, once one was broken.
    pub failure: Option<Failure<R>>,
    /// The only rule that counts: what shows that each is looked at. `None`: all do.
    pub only: Option<R>,
    /// The time, for [`Failure::at`].
    pub now: u64,
}

impl<R: PartialEq> Verdict<R> {
    /// Nothing has happened yet.
    pub fn new(only: Option<R>) -> Self {
        Self { failure: None, only, now: 0 }
    }

    /// A rule was broken. Only the first counts.
    pub fn broken(&mut self, rule: R, detail: impl FnOnce() -> String) {
        if self.failure.is_none() && self.only.as_ref().is_none_or(|only| *only == rule) {
            self.failure = Some(Failure { rule, detail: detail(), at: self.now });
        }
    }
}

/// What came of a history.
#[derive(Debug)]
pub struct History<S: Simulation> {
    /// The rule that was broken, if one was.
    pub failure: Option<Failure<S::Rule>>,
    /// What was counted.
    pub counts: S::Counts,
    /// What happened, line by line, if that was wanted.
    pub trace: Vec<String>,
}

/// Plays histories; the sum of what was counted, or the first failure with the command that plays
/// it again.
///
/// # Errors
/// The first rule that is broken.
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

/// The first of these seeds whose history breaks the rule, with this deliberately wrong. Other
/// rules do not count, and neither do the assertions of the cores: where one of them ends a
/// history, another seed shows what the rule sees.
pub fn first_to_break<S: Simulation>(
    rule: S::Rule,
    mutation: S::Mutation,
    mut seeds: Range<u64>,
) -> Option<u64> {
    let breaks = |seed: u64| S::run(seed, Some(mutation), Some(rule), false).failure.is_some();
    seeds.find(|seed| catch_unwind(AssertUnwindSafe(|| breaks(*seed))).unwrap_or(false))
}

/// The command that plays a seed again.
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
    /// How many seeds, one after the other.
    #[arg(long, default_value_t = 1)]
    histories: u64,
    /// Print what happens.
    #[arg(long)]
    trace: bool,
    /// Do something deliberately wrong.
    #[arg(long, value_enum)]
    mutation: Option<M>,
    /// Look at no other rule than this.
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
