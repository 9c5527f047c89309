//! Which gates the calling thread is inside.

use core::cell::RefCell;
use std::collections::BTreeMap;

use crate::sync::thread_local;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Shared,
    Exclusive,
}

/// What the calling thread holds, as one gate sees it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// How the thread uses this gate.
    pub(super) here: Option<Use>,
    /// Whether the thread is inside some gate.
    pub(super) anywhere: bool,
    /// Whether the thread is exclusive at some gate.
    pub(super) exclusive: bool,
}

/// The gates that one thread is inside, by address, each with the number of passes. A tree: a call
/// on a whole model holds as many gates as the model has shards, and returns them in any order.
#[derive(Debug)]
struct Gates {
    inside: BTreeMap<usize, (Use, usize)>,
    exclusive: usize,
}

thread_local! {
    static GATES: RefCell<Gates> =
        const { RefCell::new(Gates { inside: BTreeMap::new(), exclusive: 0 }) };
}

/// Whether the calling thread uses some shard, which means that it runs a callback of a call of
/// this crate.
pub(crate) fn is_inside_any() -> bool {
    // A thread that is ending has lost its list, and runs no callback.
    GATES.try_with(|gates| !gates.borrow().inside.is_empty()).unwrap_or(false)
}

/// What the calling thread holds, as the gate at this address sees it.
pub(super) fn by_this_thread(gate: usize) -> Held {
    GATES.with(|gates| {
        let gates = gates.borrow();
        Held {
            here: gates.inside.get(&gate).map(|(kind, _)| *kind),
            anywhere: !gates.inside.is_empty(),
            exclusive: gates.exclusive > 0,
        }
    })
}

/// Notes one pass more. A thread never holds passes of both kinds at one gate.
pub(super) fn enter(gate: usize, kind: Use) {
    GATES.with(|gates| {
        let mut gates = gates.borrow_mut();
        let (_, passes) = gates.inside.entry(gate).or_insert((kind, 0));
        *passes = passes.saturating_add(1);
        if kind == Use::Exclusive {
            gates.exclusive = gates.exclusive.saturating_add(1);
        }
    });
}

/// Notes one pass less.
pub(super) fn leave(gate: usize, kind: Use) {
    // The list of a thread that is ending may be gone already; no call reads it any more.
    let _gone = GATES.try_with(|gates| {
        let mut gates = gates.borrow_mut();
        if let Some((_, passes)) = gates.inside.get_mut(&gate) {
            *passes = passes.saturating_sub(1);
            if *passes == 0 {
                gates.inside.remove(&gate);
            }
        }
        if kind == Use::Exclusive {
            gates.exclusive = gates.exclusive.saturating_sub(1);
        }
    });
}
