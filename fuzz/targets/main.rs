//! Fuzz targets: one per reader of input from outside. Each checks a property that must hold for any
//! bytes: two readers agree, what is written is read again, protection holds in every notation.
//!
//! `make test` replays `fuzz/corpus/` and a bounded number of variants of each input ([`replay`]).
//! `make fuzz` drives the same functions by libFuzzer. A target must not depend on the time, on
//! random numbers or on files, so that an input that fails once fails always.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure here fails the test")]

mod accounts;
mod agent_selectors;
mod alerts;
mod batches;
mod commands;
mod expressions;
mod group_expressions;
mod input;
mod journal;
mod journal_records;
mod memory_disk;
mod messages;
mod ossec_conf;
mod policies;
mod protected;
#[cfg(not(fuzzing))]
mod replay;
mod scopes;
mod secrets;
mod targets;
mod tokens;

/// Makes a test of each target: a replay, or a run of libFuzzer when `cargo bolero` builds it.
macro_rules! fuzz_targets {
    ($($target:ident),* $(,)?) => {
        $(
            #[test]
            fn $target() {
                #[cfg(fuzzing)]
                bolero::check!(name = stringify!($target)).for_each(|input: &[u8]| $target::check(input));
                #[cfg(not(fuzzing))]
                replay::replay(stringify!($target), $target::check);
            }
        )*

        /// The names of all targets, as folders of the corpus.
        #[cfg(not(fuzzing))]
        const TARGETS: &[&str] = &[$(stringify!($target)),*];
    };
}

fuzz_targets!(
    accounts,
    agent_selectors,
    alerts,
    batches,
    commands,
    expressions,
    group_expressions,
    journal,
    journal_records,
    messages,
    ossec_conf,
    policies,
    protected,
    scopes,
    secrets,
    targets,
    tokens,
);
