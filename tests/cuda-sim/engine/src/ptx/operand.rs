//! Operands, as they are written.

use super::instruction::{Space, Special};
use super::names::{Names, Register};

/// An operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Register(Register),
    Immediate(u64),
    /// The address of a variable.
    Variable(Space, u64),
    Special(Special),
    Vector(Vec<Self>),
    /// `[base + offset]`.
    Address(Box<Self>, u64),
    /// A name that is nothing of the above: a label.
    Name(String),
}

/// Splits `a, {b, c}, [d+8]` at the commas that stand outside of braces.
pub(super) fn operands(text: &str, names: &Names) -> Option<Vec<Operand>> {
    let (mut depth, mut start, mut list) = (0_usize, 0, Vec::new());
    for (at, sign) in text.char_indices() {
        match sign {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                list.push(operand(&text[start..at], names)?);
                start = at + 1;
            }
            _ => {}
        }
    }
    let rest = &text[start..];
    if !(rest.trim().is_empty() && list.is_empty()) {
        list.push(operand(rest, names)?);
    }
    Some(list)
}

fn operand(text: &str, names: &Names) -> Option<Operand> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('{') {
        return operands(inner.strip_suffix('}')?, names).map(Operand::Vector);
    }
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']')?;
        let (base, offset) = match inner.rsplit_once('+') {
            Some((base, offset)) => (base, number(offset.trim())?),
            None => (inner, 0),
        };
        return Some(Operand::Address(Box::new(operand(base, names)?), offset));
    }
    if let Some(register) = names.register(text) {
        return Some(Operand::Register(register));
    }
    if let Some(special) = special(text) {
        return Some(Operand::Special(special));
    }
    if let Some((space, at)) = names.variable(text) {
        return Some(Operand::Variable(space, at));
    }
    if let Some(value) = number(text) {
        return Some(Operand::Immediate(value));
    }
    let is_label = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '$'));
    (is_label && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '$')))
        .then(|| Operand::Name(text.to_owned()))
}

/// A whole number in 64 bits.
fn number(text: &str) -> Option<u64> {
    if let Some(negative) = text.strip_prefix('-') {
        return number(negative).map(u64::wrapping_neg);
    }
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn special(text: &str) -> Option<Special> {
    if text == "%laneid" {
        return Some(Special::Lane);
    }
    let (name, axis) = text.split_once('.')?;
    let axis = ["x", "y", "z"].iter().position(|known| *known == axis)?;
    match name {
        "%tid" => Some(Special::Thread(axis)),
        "%ntid" => Some(Special::Threads(axis)),
        "%ctaid" => Some(Special::Block(axis)),
        "%nctaid" => Some(Special::Blocks(axis)),
        _ => None,
    }
}
