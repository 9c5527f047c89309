//! From text to decoded instructions, strictly: what is not known here is refused by name.

use std::collections::HashMap;

use super::compact::compact;
use super::image::{Parameter, Statement, statements};
use super::instruction::{
    Access, Base, Guard, Instruction, Kernel, Op, Relation, Space, Type, Work,
};
use super::names::{Class, Names, Register};
use super::operand::{Operand, operands};

/// Bytes between two shared variables that belong to neither.
const GAP: usize = 64;

/// Decodes a kernel.
pub(super) fn decode(
    name: &str,
    parameters: &[Parameter],
    bounds: &str,
    body: &str,
) -> Result<Kernel, String> {
    let mut decoder = Decoder::new(parameters);
    let max_threads = max_threads(bounds)?;
    for statement in statements(body)? {
        decoder.statement(statement)?;
    }
    decoder.finish(name, max_threads)
}

/// Reads `.maxntid 256, 1, 1 .minnctapersm 1`: the most threads of a block.
fn max_threads(bounds: &str) -> Result<Option<u64>, String> {
    let mut max = None;
    for bound in bounds.split('.').map(str::trim).filter(|bound| !bound.is_empty()) {
        let (name, values) = bound.split_once(char::is_whitespace).unwrap_or((bound, ""));
        let mut values = values.split(',').map(|value| value.trim().parse::<u64>().ok());
        let product = values.try_fold(1_u64, |all, value| all.checked_mul(value?));
        match (name, product) {
            ("maxntid", Some(product)) => max = Some(product),
            ("minnctapersm", Some(_)) => {}
            _ => return Err(format!("unknown bound: .{bound}")),
        }
    }
    Ok(max)
}

struct Decoder {
    names: Names,
    parameters: Vec<(usize, usize)>,
    shared: Vec<core::ops::Range<usize>>,
    shared_len: usize,
    shared_grain: usize,
    local_len: usize,
    labels: HashMap<String, u32>,
    /// Branches whose target is not known yet.
    branches: Vec<(usize, String)>,
    code: Vec<Instruction>,
    text: Vec<Box<str>>,
}

impl Decoder {
    fn new(list: &[Parameter]) -> Self {
        let mut names = Names::default();
        names.open();
        let (mut parameters, mut end) = (Vec::new(), 0_usize);
        for parameter in list {
            let at = end.next_multiple_of(parameter.align);
            names.place(&parameter.name, Space::Parameter, at as u64);
            parameters.push((at, parameter.len));
            end = at + parameter.len;
        }
        Self {
            names,
            parameters,
            shared: Vec::new(),
            shared_len: 0,
            shared_grain: 16,
            local_len: 0,
            labels: HashMap::new(),
            branches: Vec::new(),
            code: Vec::new(),
            text: Vec::new(),
        }
    }

    fn statement(&mut self, statement: Statement<'_>) -> Result<(), String> {
        match statement {
            Statement::Open => self.names.open(),
            Statement::Close => {
                if !self.names.close() {
                    return Err("a brace that closes nothing".to_owned());
                }
            }
            Statement::Label(name) => {
                let at = self.code.len() as u32;
                if self.labels.insert(name.to_owned(), at).is_some() {
                    return Err(format!("label {name} twice"));
                }
            }
            Statement::Directive(text) => {
                self.directive(text).ok_or_else(|| format!("unknown directive: {text}"))?;
            }
            Statement::Instruction(text) => {
                let refused = || format!("unknown instruction: {text}");
                let instruction = self.instruction(text).ok_or_else(refused)?;
                self.code.push(instruction);
                self.text.push(text.into());
            }
        }
        Ok(())
    }

    fn directive(&mut self, text: &str) -> Option<()> {
        let (name, rest) = text.split_once(char::is_whitespace)?;
        match name {
            ".reg" => self.names.declare(rest),
            ".shared" => self.variable(rest, Space::Shared),
            ".local" => self.variable(rest, Space::Local),
            ".pragma" => Some(()),
            _ => None,
        }
    }

    /// Reads `.align 8 .b8 name[4096]`.
    fn variable(&mut self, text: &str, space: Space) -> Option<()> {
        let mut words = text.split_whitespace();
        let align: usize = (words.next()? == ".align").then(|| words.next()?.parse().ok())??;
        (align.is_power_of_two() && words.next()? == ".b8").then_some(())?;
        let (name, len) = words.next()?.split_once('[')?;
        let len: usize = len.strip_suffix(']')?.parse().ok()?;
        (len <= 1 << 20 && words.next().is_none()).then_some(())?;
        let at = if space == Space::Shared {
            let at = self.shared.last().map_or(0, |last| last.end + GAP).next_multiple_of(align);
            self.shared.push(at..at + len);
            self.shared_len = self.shared_len.next_multiple_of(align) + len;
            at
        } else {
            let at = self.local_len.next_multiple_of(align);
            self.local_len = at + len;
            at
        };
        self.names.place(name, space, at as u64).then_some(())
    }

    fn instruction(&mut self, text: &str) -> Option<Instruction> {
        let (guard, text) = match text.strip_prefix('@') {
            None => (Guard::Always, text),
            Some(rest) => {
                let (name, rest) = rest.split_once(char::is_whitespace)?;
                let negated = name.strip_prefix('!');
                let register = self.names.register(negated.unwrap_or(name))?;
                (register.class == Class::Predicate).then_some(())?;
                let guard = if negated.is_some() { Guard::Unless } else { Guard::If };
                (guard(register.number), rest.trim())
            }
        };
        let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let list = operands(rest, &self.names)?;
        let parts: Vec<&str> = name.split('.').collect();
        Some(Instruction { guard, work: self.work(&parts, &list)? })
    }

    fn work(&mut self, parts: &[&str], list: &[Operand]) -> Option<Work> {
        match (parts, list) {
            (["ret"], []) => Some(Work::Return),
            (["bar", "sync"], [Operand::Immediate(0)]) => Some(Work::Barrier),
            (["bra"] | ["bra", "uni"], [Operand::Name(label)]) => {
                self.branches.push((self.code.len(), label.clone()));
                Some(Work::Branch(u32::MAX))
            }
            (["mma", "sync", "aligned", "m16n8k32", "row", "col", "s32", "u8", "s8", "s32"], _) => {
                self.matrix(list)
            }
            (["ld", space, shape @ ..], [target, address]) => {
                self.access(space, shape, target, address).map(Work::Load)
            }
            // Every store is made here, and none out of its turn: all are as if they were volatile.
            (
                ["st", "volatile", space @ "shared", shape @ ..] | ["st", space, shape @ ..],
                [address, source],
            ) if *space != "param" => self.access(space, shape, source, address).map(Work::Store),
            (["mov", kind], [target, source]) => self.moved(kind, target, source),
            (["cvta", "to", "global" | "local", "u64"] | ["cvta", "local", "u64"], [to, from]) => {
                self.moved("u64", to, from)
            }
            (["cvt", to, from], [target, source]) => convert(to, from, target, source),
            (["setp", relation, kind], [target, one, two]) => {
                let kind = integer(kind)?;
                let relation = match *relation {
                    "eq" => Relation::Equal,
                    "ne" => Relation::Different,
                    "lt" => Relation::Less,
                    "le" => Relation::LessOrEqual,
                    "gt" => Relation::Greater,
                    "ge" => Relation::GreaterOrEqual,
                    _ => return None,
                };
                let sources = [self.source(one, kind.class()?)?, self.source(two, kind.class()?)?];
                let target = target_of(target, Class::Predicate)?;
                Some(Work::Compare { relation, kind, target, sources })
            }
            (["selp", kind], [target, one, two, predicate]) => {
                let class = integer(kind)?.class()?;
                Some(Work::Select {
                    wide: class == Class::Double,
                    target: target_of(target, class)?,
                    sources: [self.source(one, class)?, self.source(two, class)?],
                    predicate: self.source(predicate, Class::Predicate)?,
                })
            }
            ([op @ ("mul" | "mad"), "wide", kind], [target, one, two, rest @ ..]) => {
                let from = integer(kind)?;
                let (class, double) = match from.bits {
                    16 => (Class::Half, Class::Word),
                    32 => (Class::Word, Class::Double),
                    _ => return None,
                };
                let addend = match (*op, rest) {
                    ("mul", []) => None,
                    ("mad", [addend]) => Some(self.source(addend, double)?),
                    _ => return None,
                };
                let factors = [self.source(one, class)?, self.source(two, class)?];
                Some(Work::Wide { from, target: target_of(target, double)?, factors, addend })
            }
            ([op, "pred"], [target, sources @ ..]) => {
                let op = operation(&[op], Type { bits: 32, signed: false })?;
                let known = matches!(op, Op::And | Op::Or | Op::Xor | Op::Not);
                (known && sources.len() == op.sources()).then_some(())?;
                let mut numbers = [0; 2];
                for (number, source) in numbers.iter_mut().zip(sources) {
                    *number = self.source(source, Class::Predicate)?;
                }
                Some(Work::Logic(op, target_of(target, Class::Predicate)?, numbers))
            }
            ([name @ .., kind], [target, sources @ ..]) => {
                self.arithmetic(name, integer(kind)?, target, sources)
            }
            _ => None,
        }
    }

    fn arithmetic(
        &mut self,
        name: &[&str],
        kind: Type,
        target: &Operand,
        sources: &[Operand],
    ) -> Option<Work> {
        let op = operation(name, kind)?;
        let class = kind.class()?;
        (sources.len() == op.sources()).then_some(())?;
        // Registers of 16 bits hold no sign, and some operations exist for 32 bits only.
        let signed = matches!(op, Op::ShiftRightSigned | Op::MinimumSigned | Op::MaximumSigned);
        let words_only = matches!(op, Op::FunnelLeft | Op::FunnelRight | Op::Extract | Op::Permute);
        let fits = match class {
            Class::Half => !signed && !words_only,
            Class::Double => !words_only,
            _ => true,
        };
        fits.then_some(())?;
        let mut numbers = [target_of(target, class)?, 0, 0, 0];
        for (at, source) in sources.iter().enumerate() {
            let class = if op.is_shift() && at == 1 { Class::Word } else { class };
            numbers[at + 1] = self.source(source, class)?;
        }
        let [target, one, two, _] = numbers;
        if let (Op::FunnelLeft | Op::FunnelRight, Some(Operand::Immediate(by))) =
            (op, sources.get(2))
            && one == two
        {
            let by = *by as u32 & 31;
            let left_by = if op == Op::FunnelLeft { by } else { by.wrapping_neg() & 31 };
            return Some(Work::Rotate { target, source: one, left_by });
        }
        Some(match class {
            Class::Half => Work::Half(op, numbers),
            Class::Double => Work::Double(op, numbers),
            _ => Work::Word(op, numbers),
        })
    }

    fn moved(&mut self, kind: &str, target: &Operand, source: &Operand) -> Option<Work> {
        let class = Class::read(kind)?;
        let halves = |class| match class {
            Class::Double => Some((true, Class::Word)),
            Class::Word => Some((false, Class::Half)),
            _ => None,
        };
        match (target, source) {
            (Operand::Vector(parts), _) => {
                let (wide, half) = halves(class)?;
                let [low, high] = parts.as_slice() else { return None };
                let halves = [target_of(low, half)?, target_of(high, half)?];
                Some(Work::Unpack { wide, halves, source: self.source(source, class)? })
            }
            (_, Operand::Vector(parts)) => {
                let (wide, half) = halves(class)?;
                let [low, high] = parts.as_slice() else { return None };
                let halves = [self.source(low, half)?, self.source(high, half)?];
                Some(Work::Pack { wide, target: target_of(target, class)?, halves })
            }
            (_, Operand::Special(special)) if class == Class::Word => {
                Some(Work::Special { target: target_of(target, class)?, special: *special })
            }
            _ => {
                let numbers = [target_of(target, class)?, self.source(source, class)?, 0, 0];
                Some(match class {
                    Class::Predicate => Work::Logic(Op::Move, numbers[0], [numbers[1], 0]),
                    Class::Double => Work::Double(Op::Move, numbers),
                    Class::Word | Class::Half => Work::Word(Op::Move, numbers),
                })
            }
        }
    }

    fn access(
        &mut self,
        space: &str,
        shape: &[&str],
        elements: &Operand,
        address: &Operand,
    ) -> Option<Access> {
        let space = match space {
            "global" => Space::Global,
            "shared" => Space::Shared,
            "local" => Space::Local,
            "param" => Space::Parameter,
            _ => return None,
        };
        let (count, kind) = match shape {
            [kind] => (1, kind),
            ["v2", kind] => (2, kind),
            ["v4", kind] => (4, kind),
            _ => return None,
        };
        let kind = integer(kind)?;
        let list = match elements {
            Operand::Vector(list) => list.as_slice(),
            one => core::slice::from_ref(one),
        };
        (list.len() == count && count * kind.bytes() <= 16).then_some(())?;
        let mut numbers = [0; 4];
        let mut wide = false;
        for (number, element) in numbers.iter_mut().zip(list) {
            let class = match element {
                Operand::Register(register) => register.class,
                _ => kind.class()?,
            };
            (class != Class::Predicate && kind.class_in(class) == Some(class)).then_some(())?;
            *number = self.source(element, class)?;
            wide = class == Class::Double;
        }
        let Operand::Address(base, offset) = address else { return None };
        let (base, start) = match base.as_ref() {
            Operand::Register(Register { class: Class::Double, number }) => {
                (Base::Double(*number), 0)
            }
            Operand::Register(Register { class: Class::Word, number })
                if space != Space::Global =>
            {
                (Base::Word(*number), 0)
            }
            Operand::Variable(of, at) if *of == space => (Base::Nothing, *at),
            _ => return None,
        };
        if space == Space::Shared {
            self.shared_grain = self.shared_grain.min(kind.bytes());
        }
        let offset = start.wrapping_add(*offset);
        Some(Access { space, kind, elements: numbers, count, wide, base, offset })
    }

    fn matrix(&mut self, list: &[Operand]) -> Option<Work> {
        let mut registers = [0; 14];
        let [sums, left, right, addends] = list else { return None };
        let mut at = 0;
        for (vector, count) in [(sums, 4), (left, 4), (right, 2), (addends, 4)] {
            let Operand::Vector(elements) = vector else { return None };
            (elements.len() == count).then_some(())?;
            for element in elements {
                registers[at] = if at < 4 {
                    target_of(element, Class::Word)?
                } else {
                    self.source(element, Class::Word)?
                };
                at += 1;
            }
        }
        Some(Work::Matrix(Box::new(registers)))
    }

    /// The register of a source of this class.
    fn source(&mut self, operand: &Operand, class: Class) -> Option<u32> {
        match operand {
            Operand::Register(register) => (register.class == class).then_some(register.number),
            Operand::Immediate(value) => Some(self.names.constant(class, *value).number),
            Operand::Variable(Space::Shared | Space::Local, at)
                if matches!(class, Class::Word | Class::Double) =>
            {
                Some(self.names.constant(class, *at).number)
            }
            _ => None,
        }
    }

    fn finish(mut self, name: &str, max_threads: Option<u64>) -> Result<Kernel, String> {
        // Running off the end is a return, as in every body that an assembler takes.
        self.code.push(Instruction { guard: Guard::Always, work: Work::Return });
        self.text.push("(end)".into());
        for (at, label) in &self.branches {
            let target = self.labels.get(label).ok_or_else(|| format!("no label {label}"))?;
            self.code[*at].work = Work::Branch(*target);
        }
        let Names { words, doubles, predicates, .. } = self.names;
        let mut kernel = Kernel {
            name: name.to_owned(),
            max_threads,
            shared_len: self.shared_len,
            local_len: self.local_len,
            parameters: self.parameters,
            shared: self.shared,
            shared_grain: self.shared_grain,
            code: self.code,
            text: self.text,
            words,
            doubles,
            predicates,
        };
        compact(&mut kernel);
        Ok(kernel)
    }
}

fn convert(to: &str, from: &str, target: &Operand, source: &Operand) -> Option<Work> {
    let (to, from) = (integer(to)?, integer(from)?);
    // A register may be wider than the type that is converted.
    let (target, source) = (register(target)?, register(source)?);
    to.class_in(target.class)?;
    from.class_in(source.class)?;
    // Sixty-four bits stand in doubles, all else in words.
    ((target.class == Class::Double) == (to.bits == 64)).then_some(())?;
    ((source.class == Class::Double) == (from.bits == 64)).then_some(())?;
    Some(Work::Convert { from, to, target: target.number, source: source.number })
}

impl Type {
    /// The class of register for it.
    fn class(self) -> Option<Class> {
        match self.bits {
            16 => Some(Class::Half),
            32 => Some(Class::Word),
            64 => Some(Class::Double),
            _ => None,
        }
    }

    /// `class`, if a register of that class can hold it.
    fn class_in(self, class: Class) -> Option<Class> {
        let bits = match class {
            Class::Predicate => 0,
            Class::Half => 16,
            Class::Word => 32,
            Class::Double => 64,
        };
        (self.bits <= bits).then_some(class)
    }
}

/// Reads `u32`, `s64`, `b8`.
fn integer(kind: &str) -> Option<Type> {
    let (sign, bits) = kind.split_at_checked(1)?;
    let bits = match bits {
        "8" => 8,
        "16" => 16,
        "32" => 32,
        "64" => 64,
        _ => return None,
    };
    matches!(sign, "u" | "s" | "b").then_some(Type { bits, signed: sign == "s" })
}

fn operation(name: &[&str], kind: Type) -> Option<Op> {
    Some(match (name, kind.signed) {
        (["add"], _) => Op::Add,
        (["sub"], _) => Op::Subtract,
        (["mul", "lo"], _) => Op::Multiply,
        (["mad", "lo"], _) => Op::MultiplyAdd,
        (["neg"], true) => Op::Negate,
        (["and"], false) => Op::And,
        (["or"], false) => Op::Or,
        (["xor"], false) => Op::Xor,
        (["not"], false) => Op::Not,
        (["shl"], false) => Op::ShiftLeft,
        (["shr"], false) => Op::ShiftRight,
        (["shr"], true) => Op::ShiftRightSigned,
        (["shf", "l", "wrap"], false) => Op::FunnelLeft,
        (["shf", "r", "wrap"], false) => Op::FunnelRight,
        (["bfe"], false) => Op::Extract,
        (["prmt"], false) => Op::Permute,
        (["min"], false) => Op::Minimum,
        (["max"], false) => Op::Maximum,
        (["min"], true) => Op::MinimumSigned,
        (["max"], true) => Op::MaximumSigned,
        _ => return None,
    })
}

fn register(operand: &Operand) -> Option<Register> {
    match operand {
        Operand::Register(register) => Some(*register),
        _ => None,
    }
}

/// The register that an instruction of this class writes.
fn target_of(operand: &Operand, class: Class) -> Option<u32> {
    register(operand).filter(|register| register.class == class).map(|register| register.number)
}
