//! Plays cluster histories: one with its trace, or many until one breaks a rule.

fn main() -> std::process::ExitCode {
    weir_sim::history::program::<weir_sim::Clusters>()
}
