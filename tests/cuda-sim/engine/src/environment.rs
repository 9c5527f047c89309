//! Devices and faults from environment variables, for a driver whose controls no test can call.

use std::io::Write as _;

use crate::fault::{CallKind, Fault};
use crate::report::Misuse;
use crate::spec::{DeviceSpec, Resets};
use crate::world::World;

/// The variable that describes the devices of a simulated driver that was loaded as a library.
///
/// Devices are separated by `;`, and the settings of one device by `,`:
///
/// ```text
/// CUDA_SIM_DEVICES="name=H200,capacity=64MiB,foreign=1MiB;capacity=1GiB,fail=alloc:3:2"
/// ```
///
/// `context` is what a context takes, `overhead` what the driver takes for itself at first use (see
/// `DeviceSpec`); with `heals=false` a sticky error outlasts a reset. `fail=KIND:N:CODE` lets the n-th call of a kind return a code, `later=KIND:N:CODE` lets the code
/// appear at the next wait, `flip=KIND:N:BIT` flips a bit. Kinds: `alloc`, `free`, `in`, `out`,
/// `within`, `peer`, `fill`, `synchronize`, `ipc`. With `ipc=false` memory cannot be shared with other
/// processes. Lengths are bytes, `KiB`, `MiB` or `GiB`. An empty
/// value means no device. A value that cannot be parsed is printed, and `cuInit` returns 999.
pub const DEVICES_VARIABLE: &str = "CUDA_SIM_DEVICES";

/// The variable with the code that `cuInit` returns, if it is set and not 0. With 34 the library is
/// a toolkit's stub: `cuDriverGetVersion` returns it too.
pub const INIT_VARIABLE: &str = "CUDA_SIM_INIT";

/// The variable with a file to which each misuse is appended as a line, for a driver whose log no test
/// can read.
pub const MISUSE_VARIABLE: &str = "CUDA_SIM_MISUSE";

/// Appends a misuse to the file of [`MISUSE_VARIABLE`].
pub(crate) fn tell(misuse: &Misuse) {
    let Some(file) = std::env::var_os(MISUSE_VARIABLE) else { return };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(file);
    // Whoever asked for the file sees that it is missing.
    let _told = opened.and_then(|mut file| file.write_all(format!("{misuse}\n").as_bytes()));
}

/// Adds the devices of the environment if the process has none yet; called by `cuInit`.
#[expect(clippy::print_stderr, reason = "a driver has no other way to report this")]
pub(crate) fn apply(world: &mut World) {
    if !world.devices.is_empty() || world.init_answer != 0 {
        return;
    }
    if let Err(reason) = from_environment(world) {
        eprintln!("simulated CUDA driver: {reason}");
        world.init_answer = crate::code::UNKNOWN;
    }
}

fn from_environment(world: &mut World) -> Result<(), String> {
    if let Ok(answer) = std::env::var(INIT_VARIABLE) {
        world.init_answer = answer.parse().map_err(|e| format!("{INIT_VARIABLE}={answer}: {e}"))?;
    }
    let Ok(devices) = std::env::var(DEVICES_VARIABLE) else { return Ok(()) };
    for text in devices.split(';').filter(|text| !text.trim().is_empty()) {
        let device =
            Described::parse(text).map_err(|e| format!("{DEVICES_VARIABLE}: `{text}`: {e}"))?;
        let ordinal = world.add_device(device.spec)?;
        if let Some(state) = world.device_mut(ordinal) {
            for (kind, n, fault) in device.faults {
                state.faults.schedule(kind, n.saturating_sub(1), 1, fault);
            }
        }
    }
    Ok(())
}

struct Described {
    spec: DeviceSpec,
    faults: Vec<(CallKind, u64, Fault)>,
}

impl Described {
    fn parse(text: &str) -> Result<Self, String> {
        let mut device = Self { spec: DeviceSpec::default(), faults: Vec::new() };
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (key, value) =
                item.split_once('=').ok_or_else(|| format!("`{item}` has no `=`"))?;
            match key.trim() {
                "name" => value.clone_into(&mut device.spec.name),
                "capacity" => device.spec.capacity = length(value)?,
                "foreign" => device.spec.foreign = length(value)?,
                "context" => device.spec.context_len = length(value)?,
                "overhead" => device.spec.overhead = length(value)?,
                "granularity" => device.spec.granularity = length(value)?,
                "heals" if yes(value)? => device.spec.resets = Resets::Heal,
                "heals" => device.spec.resets = Resets::Deny,
                "seed" => device.spec.seed = number(value)?,
                "uuid" => device.spec.uuid = Some(uuid(value)?),
                "ecc" => device.spec.ecc = yes(value)?,
                "ipc" => device.spec.ipc = yes(value)?,
                "integrated" => device.spec.integrated = yes(value)?,
                "mig" => device.spec.mig = Some(value.to_owned()),
                "group" => device.spec.peer_group = Some(number(value)?),
                "fail" => device.fault(value, |code| Ok(Fault::Fail(number(code)?)))?,
                "later" => device.fault(value, |code| Ok(Fault::FailLater(number(code)?)))?,
                "flip" => device.fault(value, |bit| Ok(Fault::FlipBit(number(bit)?)))?,
                other => return Err(format!("`{other}` is not known")),
            }
        }
        Ok(device)
    }

    fn fault(
        &mut self,
        text: &str,
        fault: impl Fn(&str) -> Result<Fault, String>,
    ) -> Result<(), String> {
        let [kind, n, what] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("`{text}` is not KIND:N:WHAT"));
        };
        let kind = match kind {
            "alloc" => CallKind::Alloc,
            "free" => CallKind::Free,
            "in" => CallKind::CopyIn,
            "out" => CallKind::CopyOut,
            "within" => CallKind::CopyWithin,
            "peer" => CallKind::CopyPeer,
            "fill" => CallKind::Fill,
            "synchronize" => CallKind::Synchronize,
            "ipc" => CallKind::Ipc,
            other => return Err(format!("`{other}` is no kind of call")),
        };
        self.faults.push((kind, number(n)?, fault(what)?));
        Ok(())
    }
}

fn number<N: core::str::FromStr<Err = core::num::ParseIntError>>(text: &str) -> Result<N, String> {
    text.trim().parse().map_err(|e| format!("`{text}`: {e}"))
}

/// 32 hexadecimal digits.
fn uuid(text: &str) -> Result<[u8; 16], String> {
    let number = u128::from_str_radix(text.trim(), 16).map_err(|e| format!("`{text}`: {e}"))?;
    Ok(number.to_be_bytes())
}

fn yes(text: &str) -> Result<bool, String> {
    text.trim().parse().map_err(|e| format!("`{text}`: {e}"))
}

fn length(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (digits, unit) = [("KiB", 1_u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    let count: u64 = number(digits)?;
    count.checked_mul(unit).ok_or_else(|| format!("`{text}` is above 2^64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_described_in_full() {
        let text = "name=H200, capacity=64MiB,foreign=3,ecc=false,mig=1g.5gb,fail=alloc:3:46,\
                    context=5MiB,overhead=2MiB";
        let device = Described::parse(text).unwrap();
        assert_eq!(device.spec.full_name(), "H200 MIG 1g.5gb");
        assert_eq!(
            (device.spec.capacity, device.spec.foreign, device.spec.ecc),
            (64 << 20, 3, false)
        );
        assert_eq!((device.spec.context_len, device.spec.overhead), (5 << 20, 2 << 20));
        assert_eq!(device.faults, [(CallKind::Alloc, 3, Fault::Fail(46))]);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_reason() {
        for text in [
            "name",
            "colour=red",
            "capacity=1TiB",
            "capacity=99999999999GiB",
            "fail=alloc:1",
            "fail=launch:1:2",
            "fail=alloc:x:2",
            "ecc=maybe",
        ] {
            assert!(Described::parse(text).is_err(), "{text}");
        }
    }
}
