//! The names of a kernel: registers in nested scopes, variables, parameters.

use std::collections::HashMap;

use super::instruction::{Bank, Space};

/// The declared size of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Predicate,
    Half,
    Word,
    Double,
}

impl Class {
    /// Of `pred`, `b32`, `u64`, …
    pub(super) fn read(kind: &str) -> Option<Self> {
        if kind == "pred" {
            return Some(Self::Predicate);
        }
        match kind.strip_prefix(['b', 'u', 's'])? {
            "16" => Some(Self::Half),
            "32" => Some(Self::Word),
            "64" => Some(Self::Double),
            _ => None,
        }
    }

    pub(super) const fn bank(self) -> Bank {
        match self {
            Self::Predicate => Bank::Predicates,
            Self::Half | Self::Word => Bank::Words,
            Self::Double => Bank::Doubles,
        }
    }
}

/// A register as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register {
    pub(super) class: Class,
    pub(super) number: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Names {
    scopes: Vec<HashMap<String, Register>>,
    /// By bank (0 for predicates, 1 for words, 2 for doubles) and value.
    constants: HashMap<(u8, u64), u32>,
    variables: HashMap<String, (Space, u64)>,
    pub(super) words: Vec<u32>,
    pub(super) doubles: Vec<u64>,
    pub(super) predicates: Vec<bool>,
}

/// What a register holds before it is written: no program may count on it.
const GARBAGE: u64 = 0xA5C3_96E1_5A3C_691E;

impl Names {
    pub(super) fn open(&mut self) {
        self.scopes.push(HashMap::new());
    }

    /// Closes a scope; false if none was open.
    pub(super) fn close(&mut self) -> bool {
        self.scopes.pop().is_some()
    }

    /// Declares what follows `.reg`: `.b32 %r<846>` or `.b32 one, two`.
    pub(super) fn declare(&mut self, text: &str) -> Option<()> {
        let (kind, list) = text.trim().strip_prefix('.')?.split_once(char::is_whitespace)?;
        let class = Class::read(kind)?;
        for name in list.split(',') {
            let name = name.trim();
            match name.split_once('<') {
                Some((stem, count)) => {
                    let count: u32 = count.strip_suffix('>')?.parse().ok()?;
                    for at in 0..count.min(1 << 20) {
                        self.add(&format!("{stem}{at}"), class)?;
                    }
                }
                None => self.add(name, class)?,
            }
        }
        Some(())
    }

    fn add(&mut self, name: &str, class: Class) -> Option<()> {
        let number = self.fresh(class.bank(), GARBAGE);
        let scope = self.scopes.last_mut()?;
        let before = scope.insert(name.to_owned(), Register { class, number });
        before.is_none().then_some(())
    }

    fn fresh(&mut self, bank: Bank, value: u64) -> u32 {
        let at = match bank {
            Bank::Words => {
                self.words.push(value as u32);
                self.words.len()
            }
            Bank::Doubles => {
                self.doubles.push(value);
                self.doubles.len()
            }
            Bank::Predicates => {
                self.predicates.push(value & 1 == 1);
                self.predicates.len()
            }
        };
        at as u32 - 1
    }

    pub(super) fn register(&self, name: &str) -> Option<Register> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).copied()
    }

    /// The register that always holds a value.
    pub(super) fn constant(&mut self, class: Class, value: u64) -> Register {
        let (key, value) = match class {
            Class::Predicate => (0, value & 1),
            Class::Half => (1, value & 0xFFFF),
            Class::Word => (1, value & 0xFFFF_FFFF),
            Class::Double => (2, value),
        };
        let known = self.constants.get(&(key, value)).copied();
        let number = known.unwrap_or_else(|| self.fresh(class.bank(), value));
        self.constants.insert((key, value), number);
        Register { class, number }
    }

    /// Names a place in memory; false if the name was taken.
    pub(super) fn place(&mut self, name: &str, space: Space, at: u64) -> bool {
        self.variables.insert(name.to_owned(), (space, at)).is_none()
    }

    pub(super) fn variable(&self, name: &str) -> Option<(Space, u64)> {
        self.variables.get(name).copied()
    }
}
