//! The library, loaded: what it is asked of one card, and the watch for XIDs.

use core::error::Error;
use core::time::Duration;
use std::collections::BTreeMap;
use std::path::Path;

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError};
use nvml_wrapper::enums::device::{SampleValue, UsedGpuMemory};
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id::{
    NVML_FI_DEV_REMAPPED_COR, NVML_FI_DEV_REMAPPED_FAILURE, NVML_FI_DEV_REMAPPED_PENDING,
    NVML_FI_DEV_REMAPPED_UNC,
};
use nvml_wrapper::{Device, EventSet, Nvml};
use vram_alloc::{ByteLen, DeviceUuid};

use super::places::candidates;
use super::{NoLibrary, XidReceiver};
use crate::card::{CardHealth, CardScope, EccCounts, HOLDERS_MAX, Holder, Holders, Remapped};
use crate::figure::Figure;
use crate::xid::{XID_UNKNOWN, XidWatch};

/// Bytes of a process's name that the library is asked for.
const NAME_BYTES: usize = 256;
/// How long the watch waits for an XID of one card before it looks at the next.
const TURN: Duration = Duration::from_millis(200);
/// The library's code for an argument of a version that it does not know.
const VERSION_MISMATCH: u32 = 25;

/// The library, started. Any of its calls may hang where a card fell off the bus.
#[derive(Debug)]
pub(crate) struct Library(Nvml);

/// A device, and its card if it is a partition.
struct Found<'a> {
    device: Device<'a>,
    whole: Option<Device<'a>>,
}

/// A card whose XIDs are waited for.
struct Watched<'a> {
    card: DeviceUuid,
    set: EventSet<'a>,
    /// Whether the library answered last.
    answers: bool,
}

impl Found<'_> {
    fn card(&self) -> &Device<'_> {
        self.whole.as_ref().unwrap_or(&self.device)
    }
}

impl Library {
    pub(crate) const BUILT: bool = true;

    /// Loads and starts the library.
    pub(crate) fn open(named: Option<&Path>) -> Result<Self, NoLibrary> {
        let mut attempts = Vec::new();
        for library in candidates(named) {
            let shown = library.to_string_lossy();
            match Nvml::builder().lib_path(&library).init() {
                Ok(nvml) => return Ok(Self(nvml)),
                Err(error @ NvmlError::LibloadingError(_)) => {
                    attempts.push(format!("{shown}: {}", in_full(&error)));
                }
                Err(NvmlError::FailedToLoadSymbol(_)) => {
                    attempts.push(format!("{shown}: loaded, but it has no nvmlInit_v2"));
                }
                Err(error) => return Err(NoLibrary::NotStarted(format!("{shown}: {error}"))),
            }
        }
        Err(NoLibrary::NotInstalled(attempts.join("; ")))
    }

    /// The version of the driver.
    pub(crate) fn driver(&self) -> Result<String, String> {
        self.0.sys_driver_version().map_err(|error| error.to_string())
    }

    /// Reads all figures of a card.
    pub(crate) fn read(&self, card: DeviceUuid) -> Result<CardHealth, String> {
        let found = self.find(card).map_err(|error| format!("{card}: {error}"))?;
        let card = found.card();
        Ok(CardHealth {
            scope: match found.whole {
                Some(_) => CardScope::WholeCardOfPartition,
                None => CardScope::Card,
            },
            ecc_volatile: ecc(card, EccCounter::Volatile),
            ecc_aggregate: ecc(card, EccCounter::Aggregate),
            remapped: remapped(card),
            retired_pending: figure(card.are_pages_pending_retired()),
            holders: self.holders(&found.device),
        })
    }

    /// A partition (MIG) has a UUID of its own, which the library spells differently.
    fn find(&self, card: DeviceUuid) -> Result<Found<'_>, NvmlError> {
        let spelt = card.to_string();
        let part = spelt.replacen("GPU-", "MIG-", 1);
        match self.0.device_by_uuid(spelt) {
            Ok(device) => Ok(Found { device, whole: None }),
            Err(unknown @ (NvmlError::NotFound | NvmlError::InvalidArg)) => {
                let device = self.0.device_by_uuid(part).map_err(|_as_unknown| unknown)?;
                let whole = Some(device.mig_parent_device()?);
                Ok(Found { device, whole })
            }
            Err(error) => Err(error),
        }
    }

    fn holders(&self, device: &Device<'_>) -> Figure<Holders> {
        let mut by_pid: BTreeMap<u32, Figure<ByteLen>> = BTreeMap::new();
        let compute = match device.running_compute_processes() {
            Ok(compute) => compute,
            Err(error) => return refused(error),
        };
        // A process that computes and draws is in both lists with the same bytes. Cards without a
        // screen have no second list.
        let graphics = device.running_graphics_processes().unwrap_or_default();
        for ProcessInfo { pid, used_gpu_memory, .. } in compute.into_iter().chain(graphics) {
            let bytes = match used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Figure::Known(ByteLen::new(bytes)),
                UsedGpuMemory::Unavailable => Figure::Unsupported,
            };
            by_pid.entry(pid).or_insert(bytes);
        }
        let unnamed =
            |(pid, bytes)| Holder::new(pid, Figure::Unknown("not asked".to_owned()), bytes);
        let mut holders = Holders::new(by_pid.into_iter().map(unnamed).collect());
        debug_assert!(holders.first.len() <= HOLDERS_MAX, "each name is a call");
        for holder in &mut holders.first {
            let name = figure(self.0.sys_process_name(holder.pid, NAME_BYTES));
            *holder = Holder::new(holder.pid, name, holder.bytes.clone());
        }
        Figure::Known(holders)
    }

    /// Watches for XIDs until the receiver says that it is to end, or the library breaks off.
    pub(crate) fn watch(&self, cards: &[DeviceUuid], receiver: &impl XidReceiver) {
        // A set for each card: after a card fell off the bus, the library may not say whose event it
        // is.
        let mut sets: Vec<Watched<'_>> = Vec::new();
        for &card in cards {
            match self.event_set(card) {
                Ok(set) => {
                    receiver.state(card, XidWatch::Watching);
                    sets.push(Watched { card, set, answers: true });
                }
                Err(why) => receiver.state(card, XidWatch::NotOffered(why)),
            }
        }
        if sets.is_empty() {
            return;
        }
        let turn = TURN.checked_div(u32::try_from(sets.len()).unwrap_or(u32::MAX));
        let turn = turn.map_or(1, |turn| u32::try_from(turn.as_millis()).unwrap_or(1)).max(10);
        loop {
            for Watched { card, set, answers } in &mut sets {
                let answer = match set.wait(turn) {
                    Ok(event) => Ok(event.event_data),
                    Err(NvmlError::Timeout) => Ok(None),
                    Err(error) => Err(error.to_string()),
                };
                match answer {
                    Ok(Some(XidError::Value(xid))) => receiver.seen(*card, xid),
                    Ok(Some(XidError::Unknown)) => receiver.seen(*card, XID_UNKNOWN),
                    Ok(None) => {}
                    Err(why) => {
                        *answers = false;
                        receiver.state(*card, XidWatch::NotOffered(why));
                        if receiver.pause(Duration::from_secs(1)) {
                            return;
                        }
                        continue;
                    }
                }
                if !core::mem::replace(answers, true) {
                    receiver.state(*card, XidWatch::Watching);
                }
            }
            if receiver.pause(Duration::ZERO) {
                return;
            }
        }
    }

    fn event_set(&self, card: DeviceUuid) -> Result<EventSet<'_>, String> {
        let found = self.find(card).map_err(|error| error.to_string())?;
        let set = self.0.create_event_set().map_err(|error| error.to_string())?;
        let device = found.whole.unwrap_or(found.device);
        let set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set);
        set.map_err(|error| error.to_string())
    }
}

fn ecc(card: &Device<'_>, counter: EccCounter) -> EccCounts {
    EccCounts {
        corrected: figure(card.total_ecc_errors(MemoryError::Corrected, counter)),
        uncorrected: figure(card.total_ecc_errors(MemoryError::Uncorrected, counter)),
    }
}

fn remapped(card: &Device<'_>) -> Remapped {
    let fields = [
        NVML_FI_DEV_REMAPPED_COR,
        NVML_FI_DEV_REMAPPED_UNC,
        NVML_FI_DEV_REMAPPED_PENDING,
        NVML_FI_DEV_REMAPPED_FAILURE,
    ];
    let [corrected, uncorrected, pending, failed] = fields.map(|field| number(card, field));
    Remapped {
        corrected,
        uncorrected,
        pending: pending.map(|pending| pending != 0),
        failed: failed.map(|failed| failed != 0),
    }
}

/// A field that is a whole number. Fields are asked for one by one: an older library refuses all of
/// a list for one that it does not know.
fn number(card: &Device<'_>, field: u32) -> Figure<u64> {
    let mut values = match card.field_values_for(&[FieldId(field)]) {
        Ok(values) => values,
        Err(error) => return refused(error),
    };
    match values.pop().map(|value| value.and_then(|sample| sample.value)) {
        Some(Ok(SampleValue::U32(value))) => Figure::Known(u64::from(value)),
        Some(Ok(SampleValue::U64(value))) => Figure::Known(value),
        Some(Ok(SampleValue::I64(value))) => match u64::try_from(value) {
            Ok(value) => Figure::Known(value),
            Err(_negative) => Figure::Unknown(format!("the library says {value}")),
        },
        Some(Ok(other)) => Figure::Unknown(format!("the library says {other:?}")),
        Some(Err(error)) => refused(error),
        None => Figure::Unknown("the library gave no value".to_owned()),
    }
}

fn figure<T>(answer: Result<T, NvmlError>) -> Figure<T> {
    match answer {
        Ok(value) => Figure::Known(value),
        Err(error) => refused(error),
    }
}

fn refused<T>(error: NvmlError) -> Figure<T> {
    match error {
        NvmlError::NotSupported | NvmlError::VgpuEccNotSupported => Figure::Unsupported,
        NvmlError::FunctionNotFound
        | NvmlError::FailedToLoadSymbol(_)
        | NvmlError::UnexpectedVariant(VERSION_MISMATCH) => Figure::TooOld,
        NvmlError::NoPermission => Figure::NoPermission,
        other => Figure::Unknown(in_full(&other)),
    }
}

/// An error with its causes, which contain the loader's own message.
fn in_full(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_cannot_say_is_told_apart() {
        assert_eq!(figure(Ok(0)), Figure::Known(0));
        for (error, wanted) in [
            (NvmlError::NotSupported, Figure::Unsupported),
            (NvmlError::FunctionNotFound, Figure::TooOld),
            (NvmlError::FailedToLoadSymbol("nvmlX".to_owned()), Figure::TooOld),
            (NvmlError::UnexpectedVariant(VERSION_MISMATCH), Figure::TooOld),
            (NvmlError::NoPermission, Figure::NoPermission),
        ] {
            assert_eq!(refused::<u64>(error), wanted);
        }
        let Figure::Unknown(why) = refused::<u64>(NvmlError::GpuLost) else { panic!("known") };
        assert!(why.contains("fell off the bus"), "{why}");
    }
}
