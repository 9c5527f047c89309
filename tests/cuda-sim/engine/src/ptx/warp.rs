//! One warp: groups of lanes that stand at the same instruction.

use super::alu::{Registers, extend};
use super::global::Global;
use super::instruction::{Access, Base, Guard, Kernel, Space, Special, Work};
use super::shared::Shared;
use super::{LANES, Trap, matrix};
use crate::code;
use crate::report::MisuseKind;
use crate::shape::LaunchShape;

/// Lanes that stand at the same instruction.
#[derive(Clone, Copy, Debug)]
struct Group {
    at: u32,
    lanes: u32,
}

/// What a launch gives its warps.
pub(super) struct Scene<'s, 'm> {
    pub(super) kernel: &'s Kernel,
    pub(super) shape: LaunchShape,
    pub(super) block: [u32; 3],
    pub(super) parameters: &'s [u8],
    pub(super) step_limit: u64,
    pub(super) global: &'s mut Global<'m>,
    pub(super) shared: &'s mut Shared,
}

/// Where a warp stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    Done,
    /// All its threads wait at the barrier at this instruction.
    Barrier(u32),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Warp {
    registers: Registers,
    local: Vec<u8>,
    /// Number of the first thread.
    first: u32,
    /// Its lanes. One that returned early is missed at a barrier.
    lanes: u32,
    ready: Vec<Group>,
    /// Groups that wait for the other lanes of the warp.
    waiting: Vec<Group>,
    steps: u64,
}

impl Warp {
    pub(super) fn new(kernel: &Kernel, first: u32) -> Self {
        Self {
            registers: Registers::new(kernel),
            local: vec![0; kernel.local_len * LANES],
            first,
            lanes: 0,
            ready: Vec::new(),
            waiting: Vec::new(),
            steps: 0,
        }
    }

    /// As at the start of a block with so many threads.
    pub(super) fn reset(&mut self, kernel: &Kernel, threads: u32) {
        self.registers.reset(kernel);
        self.local.fill(0xA5);
        let lanes = threads.saturating_sub(self.first).min(LANES as u32);
        self.lanes = u32::MAX.checked_shr(32 - lanes).unwrap_or(0);
        self.ready.clear();
        self.waiting.clear();
        self.steps = 0;
        self.ready.push(Group { at: 0, lanes: self.lanes });
    }

    /// Runs until all threads have returned or wait at a barrier.
    pub(super) fn run(&mut self, scene: &mut Scene<'_, '_>) -> Result<Stand, Trap> {
        loop {
            while let Some(group) = self.furthest_behind() {
                self.advance(group, scene)?;
            }
            let Some(first) = self.waiting.first().copied() else { return Ok(Stand::Done) };
            let work = &scene.kernel.code[first.at as usize].work;
            let needed = if matches!(work, Work::Matrix(_)) { u32::MAX } else { self.lanes };
            if self.waiting.len() > 1 || first.lanes != needed {
                let lane = first.lanes.trailing_zeros();
                let what = "not all lanes of the warp meet here".to_owned();
                return Err(self.trap(scene, first.at, lane, Trap::apart(what)));
            }
            self.waiting.clear();
            self.ready.push(Group { at: first.at + 1, lanes: first.lanes });
            match work {
                Work::Matrix(registers) => matrix::multiply(&mut self.registers, registers),
                _ => return Ok(Stand::Barrier(first.at)),
            }
        }
    }

    /// Takes the group with the lowest instruction, together with all that stand there.
    fn furthest_behind(&mut self) -> Option<Group> {
        let at = self.ready.iter().map(|group| group.at).min()?;
        let mut lanes = 0;
        self.ready.retain(|group| {
            lanes |= if group.at == at { group.lanes } else { 0 };
            group.at != at
        });
        Some(Group { at, lanes })
    }

    /// Runs a group until it reaches another one, or has to wait, or is done.
    fn advance(&mut self, group: Group, scene: &mut Scene<'_, '_>) -> Result<(), Trap> {
        let Group { mut at, mut lanes } = group;
        let mut next_group = self.ready.iter().map(|group| group.at).min().unwrap_or(u32::MAX);
        let kernel = scene.kernel;
        while lanes != 0 {
            if at >= next_group {
                self.ready.push(Group { at, lanes });
                return Ok(());
            }
            self.steps += 1;
            let instruction = &kernel.code[at as usize];
            let here = at;
            at += 1;
            let active = lanes
                & match instruction.guard {
                    Guard::Always => u32::MAX,
                    Guard::If(predicate) => self.registers.predicates[predicate as usize],
                    Guard::Unless(predicate) => !self.registers.predicates[predicate as usize],
                };
            if active == 0 {
                continue;
            }
            match &instruction.work {
                Work::Branch(target) => {
                    if self.steps > scene.step_limit {
                        let lane = active.trailing_zeros();
                        return Err(self.trap(scene, here, lane, Trap::endless()));
                    }
                    if active == lanes {
                        at = *target;
                    } else {
                        self.ready.push(Group { at: *target, lanes: active });
                        lanes &= !active;
                        next_group = next_group.min(*target);
                    }
                }
                Work::Return => lanes &= !active,
                Work::Barrier | Work::Matrix(_) => {
                    match self.waiting.iter_mut().find(|group| group.at == here) {
                        Some(group) => group.lanes |= active,
                        None => self.waiting.push(Group { at: here, lanes: active }),
                    }
                    lanes &= !active;
                }
                work => self
                    .compute(work, active, scene)
                    .map_err(|(lane, trap)| self.trap(scene, here, lane, trap))?,
            }
        }
        Ok(())
    }

    fn compute(
        &mut self,
        work: &Work,
        mask: u32,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), (u32, Trap)> {
        let registers = &mut self.registers;
        match work {
            Work::Word(op, at) => registers.word(*op, *at, mask),
            Work::Half(op, at) => registers.half(*op, *at, mask),
            Work::Double(op, at) => registers.double(*op, *at, mask),
            Work::Rotate { target, source, left_by } => {
                registers.rotate(*target, *source, *left_by, mask);
            }
            Work::Wide { from, target, factors, addend } => {
                registers.wide(*from, *target, *factors, *addend, mask);
            }
            Work::Compare { relation, kind, target, sources } => {
                registers.compare(*relation, *kind, *target, *sources, mask);
            }
            Work::Select { wide, target, sources, predicate } => {
                registers.select(*wide, *target, *sources, *predicate, mask);
            }
            Work::Logic(op, target, sources) => registers.logic(*op, *target, *sources, mask),
            Work::Convert { from, to, target, source } => {
                registers.convert(*from, *to, *target, *source, mask);
            }
            Work::Special { target, special } => {
                let value = self.special(*special, scene);
                self.registers.set_word(*target, value, mask);
            }
            Work::Pack { wide, target, halves } => registers.pack(*wide, *target, *halves, mask),
            Work::Unpack { wide, halves, source } => {
                registers.unpack(*wide, *halves, *source, mask);
            }
            Work::Load(access) => self.each(*access, mask, |warp, lane, address| {
                warp.load(*access, lane, address, scene)
            })?,
            Work::Store(access) => self.each(*access, mask, |warp, lane, address| {
                warp.store(*access, lane, address, scene)
            })?,
            // These are the business of `advance`.
            Work::Matrix(_) | Work::Branch(_) | Work::Barrier | Work::Return => {}
        }
        Ok(())
    }

    fn special(&self, special: Special, scene: &Scene<'_, '_>) -> [u32; LANES] {
        let [x, y, _] = scene.shape.block;
        let (x, y) = (x.max(1), y.max(1));
        core::array::from_fn(|lane| {
            let thread = self.first + lane as u32;
            match special {
                Special::Thread(0) => thread % x,
                Special::Thread(1) => thread / x % y,
                Special::Thread(_) => thread / x / y,
                Special::Threads(axis) => scene.shape.block[axis],
                Special::Block(axis) => scene.block[axis],
                Special::Blocks(axis) => scene.shape.grid[axis],
                Special::Lane => lane as u32,
            }
        })
    }

    /// Passes each active lane and the address of its access, which is aligned.
    fn each(
        &mut self,
        access: Access,
        mask: u32,
        mut run: impl FnMut(&mut Self, u32, u64) -> Result<(), Trap>,
    ) -> Result<(), (u32, Trap)> {
        let bytes = (access.count * access.kind.bytes()) as u64;
        let mut left = mask;
        while left != 0 {
            let lane = left.trailing_zeros();
            left &= left - 1;
            let base = match access.base {
                Base::Nothing => 0,
                Base::Word(register) => {
                    self.registers.words[register as usize][lane as usize].into()
                }
                Base::Double(register) => self.registers.doubles[register as usize][lane as usize],
            };
            let address = base.wrapping_add(access.offset);
            if address % bytes == 0 {
                run(self, lane, address).map_err(|trap| (lane, trap))?;
            } else {
                return Err((lane, Trap::misaligned(address, bytes)));
            }
        }
        Ok(())
    }

    fn load(
        &mut self,
        access: Access,
        lane: u32,
        address: u64,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Trap> {
        let size = access.kind.bytes();
        let len = access.count * size;
        let at = usize::try_from(address).unwrap_or(usize::MAX);
        let bytes = match access.space {
            Space::Global => scene.global.load(address, len)?,
            Space::Shared => scene.shared.access(address, len, self.first + lane, false)?,
            Space::Local => {
                let own = lane as usize * scene.kernel.local_len;
                let end = at.checked_add(len).filter(|end| *end <= scene.kernel.local_len);
                &self.local[own + at..own + end.ok_or_else(|| Trap::outside("local", address))?]
            }
            Space::Parameter => {
                let inside = scene.parameters.get(at..at.saturating_add(len));
                inside.ok_or_else(|| Trap::outside("parameter", address))?
            }
        };
        for (element, bytes) in access.elements.iter().zip(bytes.chunks_exact(size)) {
            let value = match *bytes {
                [a] => u64::from(a),
                [a, b] => u64::from(u16::from_le_bytes([a, b])),
                [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
                _ => bytes.try_into().map_or(0, u64::from_le_bytes),
            };
            let value = if access.kind.signed { extend(value, access.kind) } else { value };
            if access.wide {
                self.registers.doubles[*element as usize][lane as usize] = value;
            } else {
                self.registers.words[*element as usize][lane as usize] = value as u32;
            }
        }
        Ok(())
    }

    fn store(
        &mut self,
        access: Access,
        lane: u32,
        address: u64,
        scene: &mut Scene<'_, '_>,
    ) -> Result<(), Trap> {
        let size = access.kind.bytes();
        let len = access.count * size;
        let mut bytes = [0; 16];
        for (element, bytes) in access.elements.iter().zip(bytes.chunks_exact_mut(size)) {
            if access.wide {
                let value = self.registers.doubles[*element as usize][lane as usize];
                bytes.copy_from_slice(&value.to_le_bytes()[..size]);
            } else {
                let value = self.registers.words[*element as usize][lane as usize];
                bytes.copy_from_slice(&u64::from(value).to_le_bytes()[..size]);
            }
        }
        let bytes = &bytes[..len];
        match access.space {
            Space::Global => scene.global.store(address, bytes)?,
            Space::Shared => {
                let thread = self.first + lane;
                scene.shared.access(address, len, thread, true)?.copy_from_slice(bytes);
            }
            Space::Local => {
                let at = usize::try_from(address).unwrap_or(usize::MAX);
                let end = at.checked_add(len).filter(|end| *end <= scene.kernel.local_len);
                let end = end.ok_or_else(|| Trap::outside("local", address))?;
                let own = lane as usize * scene.kernel.local_len;
                self.local[own + at..own + end].copy_from_slice(bytes);
            }
            // The decoder makes no such store.
            Space::Parameter => {}
        }
        Ok(())
    }

    /// Says where it happened.
    pub(super) fn trap(&self, scene: &Scene<'_, '_>, at: u32, lane: u32, trap: Trap) -> Trap {
        let text = scene.kernel.text.get(at as usize).map_or("", |text| text);
        let [x, y, z] = scene.block;
        let thread = self.first + lane;
        let Trap { code, kind, detail } = trap;
        let name = &scene.kernel.name;
        let detail = format!(
            "{detail}, in kernel {name}, block ({x}, {y}, {z}), thread {thread}, at {text}"
        );
        Trap { code, kind, detail }
    }
}

impl Trap {
    /// Threads that should meet do not.
    pub(super) const fn apart(detail: String) -> Self {
        Self { code: code::LAUNCH_FAILED, kind: MisuseKind::Barrier, detail }
    }

    fn endless() -> Self {
        Self {
            code: code::LAUNCH_TIMEOUT,
            kind: MisuseKind::Endless,
            detail: "it does not end".to_owned(),
        }
    }

    fn misaligned(address: u64, bytes: u64) -> Self {
        Self {
            code: code::MISALIGNED_ADDRESS,
            kind: MisuseKind::Misaligned,
            detail: format!("{bytes} bytes at {address:#x}"),
        }
    }

    fn outside(what: &str, address: u64) -> Self {
        Self {
            code: code::ILLEGAL_ADDRESS,
            kind: MisuseKind::OutOfBounds,
            detail: format!("{what} memory has no byte {address:#x}"),
        }
    }
}
