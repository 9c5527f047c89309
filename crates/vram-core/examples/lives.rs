//! Prints `docs/lives.md`: the states of a GPU and of a shard, and every transition, from the tables
//! that the code runs on.
//!
//! ```sh
//! cargo run -q -p vram-core --example lives > docs/lives.md
//! ```

#[cfg(test)]
#[macro_use]
extern crate vram_testkit;

use vram_core::shard::{ShardCause, ShardState};
use vram_space::{LifeCause, LifeState};

#[expect(clippy::print_stdout, reason = "a program that prints")]
fn main() {
    print!("{}", page());
}

/// The whole page.
fn page() -> String {
    let life = |state: LifeState, cause: LifeCause| state.step(cause).to_string();
    let shard = |state: ShardState, cause: ShardCause| state.step(cause).to_string();
    format!(
        "{}\n{}\n{}\n{}\n{}",
        include_str!("lives/head.md"),
        table(&LifeState::ALL, &LifeCause::ALL, LifeState::name, LifeCause::name, life),
        include_str!("lives/shards.md"),
        table(&ShardState::ALL, &ShardCause::ALL, ShardState::name, ShardCause::name, shard),
        include_str!("lives/end.md"),
    )
}

fn table<S: Copy, C: Copy>(
    states: &[S],
    causes: &[C],
    state: impl Fn(S) -> &'static str,
    cause: impl Fn(C) -> &'static str,
    step: impl Fn(S, C) -> String,
) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let names = states.iter().map(|one| format!("**{}**", state(*one)));
    let mut text = row(core::iter::once(String::new()).chain(names).collect());
    text += &row(core::iter::repeat_n("---".to_owned(), states.len().saturating_add(1)).collect());
    for one in causes {
        let steps = states.iter().map(|from| step(*from, *one));
        text += &row(core::iter::once(cause(*one).to_owned()).chain(steps).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_docs_is_the_one_that_the_tables_print() {
        let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/lives.md");
        let committed = std::fs::read_to_string(docs).unwrap();
        assert!(committed == page(), "cargo run -q -p vram-core --example lives > docs/lives.md");
    }
}
