//! The devices that a command uses: those that the user named, or all that there are.

use core::time::Duration;
use std::sync::Arc;

use serde::Serialize;
use vram_residency::device::fault::{FaultDevice, FaultPlan};
use vram_residency::device::kernels::NoKernels;
use vram_residency::device::{DeviceSpec, MemoryInfo};
use vram_residency::{
    Budget, ByteLen, Compute, Device, DeviceInfo, DeviceKind, GpuIndex, HostDevice, VramManager,
    VramManagerBuilder,
};

use super::cuda;
use crate::cards;
use crate::failure::{Failure, Kind, card_name};
use crate::output::note;
use crate::table;

/// Open devices, and the reason for choosing them.
#[derive(Debug)]
pub(crate) struct Devices {
    /// The devices, in order of their index.
    open: Vec<Arc<dyn Device>>,
    /// Why these devices, if the user named none.
    pub(crate) why: Option<String>,
    /// The figures of each card before anything was taken of it.
    cards: Vec<Card>,
}

/// How much of a card a load may use.
#[derive(Debug)]
struct Card {
    gpu: u32,
    info: DeviceInfo,
    memory: MemoryInfo,
    /// Nine tenths of what was free.
    usable: ByteLen,
    /// What the manager may take: as much as the model needs, and no more than is usable.
    budget: ByteLen,
}

/// The figures of a card for a plan. Lengths are in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CardFigures {
    total: u64,
    /// What others hold of it, according to its driver.
    foreign: u64,
    /// What a load may use of it: nine tenths of what is free.
    usable: u64,
    /// What would be left of that with the model in place.
    left: u64,
}

impl Devices {
    /// Opens the devices that the user named, or else all that there are.
    ///
    /// A build with CUDA that finds no card does not use host memory unless the user says so: a
    /// check of a GPU would pass without one.
    ///
    /// # Arguments
    ///
    /// * `specs`: from the command line; empty for every CUDA device.
    /// * `needed`: the size in bytes of the host device that a build without CUDA uses, if the user
    ///   named none.
    pub(crate) fn open(specs: &[DeviceSpec], needed: ByteLen) -> Result<Self, Failure> {
        if !specs.is_empty() {
            let devices = (0..).zip(specs).map(|(index, spec)| match *spec {
                DeviceSpec::Host(total) => host(index, total),
                named => cuda::open(named, index).map_err(|reason| {
                    Failure::new(Kind::Device, format!("--device {spec}: {reason}"))
                        .code("no-gpu")
                        .hint(USE_HOST)
                }),
            });
            return Ok(Self::new(devices.collect::<Result<_, _>>()?, None));
        }
        match cuda::detect() {
            Ok(found) => {
                let count = found.devices.len();
                let why = format!("no --device was given: using every CUDA device, {count} in all");
                for reason in found.left_out {
                    note(format!("not used: {reason}"));
                }
                Ok(Self::new(found.devices, Some(why)))
            }
            Err(reason) if cuda::BUILT => Err(Failure::new(
                Kind::Device,
                format!("no --device was given, and no CUDA device can be used: {reason}"),
            )
            .code("no-gpu")
            .hint(format!(
                "see `vram devices`; host memory is used only if it is named: --device host:{}",
                needed.get()
            ))),
            Err(reason) => {
                let size = table::size(needed);
                let why =
                    format!("no --device was given: using {size} of host memory, since {reason}");
                Ok(Self::new(vec![host(0, needed)?], Some(why)))
            }
        }
    }

    /// Opens the devices that a configuration names.
    pub(crate) fn configured(specs: &[DeviceSpec]) -> Result<Self, Failure> {
        let devices = (0..).zip(specs).map(|(gpu, spec)| {
            let opened = match *spec {
                DeviceSpec::Host(total) => HostDevice::new(GpuIndex::new(gpu), total)
                    .map(|host| -> Arc<dyn Device> { Arc::new(host) })
                    .map_err(|error| error.to_string()),
                named => cuda::open(named, gpu),
            };
            opened.map_err(|reason| {
                Failure::new(Kind::Device, format!("gpu {gpu}, device = \"{spec}\": {reason}"))
                    .code("no-gpu")
                    .hint("see `vram devices`, or use host memory, such as device = \"host:8GiB\"")
            })
        });
        Ok(Self::new(devices.collect::<Result<_, _>>()?, None))
    }

    fn new(open: Vec<Arc<dyn Device>>, why: Option<String>) -> Self {
        Self { open, why, cards: Vec::new() }
    }

    /// The first device.
    pub(crate) fn first(&self) -> Option<Arc<dyn Device>> {
        self.open.first().cloned()
    }

    /// What identifies each device, in order of their index.
    pub(crate) fn infos(&self) -> Vec<DeviceInfo> {
        self.open.iter().map(|device| device.info().clone()).collect()
    }

    /// Puts a device that can flip bits in front of each host device, and returns it; `None` for a
    /// card, in the order of the devices.
    pub(crate) fn wrap_hosts(&mut self) -> Vec<Option<Arc<FaultDevice>>> {
        let wrap = |device: &mut Arc<dyn Device>| {
            let is_host = device.info().kind == DeviceKind::Host;
            let fault = is_host.then(|| FaultDevice::new(Arc::clone(device), FaultPlan::default()));
            if let Some(fault) = &fault {
                *device = fault.clone();
            }
            fault
        };
        self.open.iter_mut().map(wrap).collect()
    }

    /// The devices themselves, for a server, which sets their budgets by its configuration. Nothing
    /// else in its process uses them, so it may reset them.
    pub(crate) fn into_open(self) -> Vec<Arc<dyn Device>> {
        self.open.into_iter().map(cuda::alone).collect()
    }

    /// A manager's builder over these devices. Other programs may use a card too, so the budget of
    /// a card is `needed`, and never more than nine tenths of its free memory.
    pub(crate) fn builder(&mut self, needed: ByteLen) -> Result<VramManagerBuilder, Failure> {
        self.builder_when(needed, true)
    }

    /// As [`builder`](Self::builder), for a plan: asks for figures alone, and waits for no driver.
    pub(crate) fn planner(&mut self, needed: ByteLen) -> Result<VramManagerBuilder, Failure> {
        self.builder_when(needed, false)
    }

    fn builder_when(&mut self, needed: ByteLen, used: bool) -> Result<VramManagerBuilder, Failure> {
        let mut builder = VramManager::builder();
        // A driver that sees the kernels first takes a second or two to compile them: for less, the
        // host is quicker.
        let kernels = needed >= KERNELS_FROM;
        if !kernels {
            builder = builder.compute(Compute::Host);
        }
        for (gpu, device) in (0..).zip(&self.open) {
            builder = builder.device(Arc::clone(device));
            let info = device.info();
            if info.kind != DeviceKind::Host {
                let memory = device.memory().map_err(|error| {
                    Failure::new(Kind::Device, error.to_string())
                        .detail(|details| details.gpu = Some(gpu))
                })?;
                let share = memory.free.get().saturating_sub(memory.free.get().div_ceil(10));
                let mut needed = needed;
                if kernels {
                    needed = needed.saturating_add(device.kernel_scratch());
                    if used {
                        wait_for_kernels(gpu, &**device);
                    }
                }
                // Round down to whole granules.
                let usable = ByteLen::new(share & !255);
                let budget = needed.min(usable);
                builder = builder.budget(gpu, Budget::Bytes(budget));
                self.cards.push(Card { gpu, info: info.clone(), memory, usable, budget });
            }
        }
        Ok(builder)
    }

    /// The figures of each card, for an error of no room: `; gpu 0 (…) has …`. Empty for host
    /// memory, which nobody else holds.
    pub(crate) fn figures(&self) -> String {
        let uuids: Vec<_> = self.cards.iter().map(|card| card.info.uuid).collect();
        let card = |(card, others): (&Card, Option<String>)| {
            format!(
                "; gpu {} ({}) has {}, of which others hold {}{}, and nine tenths of the rest may be \
                 used: {}",
                card.gpu,
                card_name(&card.info),
                table::size(card.memory.total),
                table::size(card.memory.used()),
                others.map_or_else(String::new, |others| format!(" ({others})")),
                table::size(card.budget),
            )
        };
        self.cards.iter().zip(cards::others(&uuids)).map(card).collect()
    }

    /// The figures of a card of which a model takes `taken`; `None` for host memory.
    pub(crate) fn card(&self, gpu: u32, taken: ByteLen) -> Option<CardFigures> {
        let card = self.cards.iter().find(|card| card.gpu == gpu)?;
        Some(CardFigures {
            total: card.memory.total.get(),
            foreign: card.memory.used().get(),
            usable: card.usable.get(),
            left: card.usable.saturating_sub(taken).get(),
        })
    }

    /// Bytes that others hold of all cards, according to their drivers.
    pub(crate) fn foreign(&self) -> Option<u64> {
        let held = self.cards.iter().map(|card| card.memory.used().get());
        held.reduce(u64::saturating_add)
    }
}

/// Waits until a card can check what lies there, and says if it cannot.
fn wait_for_kernels(gpu: u32, device: &dyn Device) {
    match device.wait_for_kernels(KERNELS_WAIT).map(drop) {
        Ok(()) | Err(NoKernels::NotOffered) => {}
        Err(why) => note(format!("gpu {gpu}: the host checks what lies there: {why}")),
    }
}

impl CardFigures {
    /// What a person wants to know of them.
    pub(crate) fn in_words(&self) -> String {
        let size = |len| table::size(ByteLen::new(len));
        format!(
            "a card of {}, of which others hold {}; a load may use {} of it, and {} of that would be \
             left",
            size(self.total),
            size(self.foreign),
            size(self.usable),
            size(self.left),
        )
    }
}

/// Models of so many bytes are checked by the cards themselves.
const KERNELS_FROM: ByteLen = ByteLen::new(256 << 20);

/// How long a command waits for a driver that sees the kernels first.
const KERNELS_WAIT: Duration = Duration::from_secs(5);

/// The hint for a user who named a device that does not exist.
const USE_HOST: &str = "see `vram devices`, or use host memory, such as --device host:8GiB";

fn host(index: u32, total: ByteLen) -> Result<Arc<dyn Device>, Failure> {
    let device = HostDevice::new(GpuIndex::new(index), total).map_err(|error| {
        Failure::usage(format!("--device host:{}: {error}", total.get()))
            .hint("give less than host:256TiB")
    })?;
    Ok(Arc::new(device))
}
