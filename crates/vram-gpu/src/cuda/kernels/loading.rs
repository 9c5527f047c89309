//! Loading: which cards and drivers the kernels are for, their PTX, and how they come to be offered.

use core::ffi::CStr;
use std::sync::Arc;

use cust::device::DeviceAttribute;

use super::super::context::Port;
use super::super::driver::through_cust;
use super::cipher::CipherKernels;
use super::fingerprint::FingerprintKernels;
use super::hash::HashKernels;
use super::life::Life;
use super::module::Module;
use super::offer::Offer;
use crate::kernels::{KernelError, NoKernels, known};
use crate::{DeviceInfo, GpuError, codes};

/// The PTX, with the NUL at its end that the driver wants.
macro_rules! image {
    ($name:literal) => {
        concat!(include_str!(concat!("../../../kernels/", $name, ".ptx")), "\0")
    };
}

const BLAKE3: &str = image!("blake3");
const FINGERPRINT: &str = image!("fingerprint");
const CHACHA: &str = image!("chacha");

/// The PTX is for cards from this compute capability on, and for drivers from CUDA 11.4 on.
const CAPABILITY_MIN: (u32, u32) = (8, 0);
const DRIVER_MIN: u32 = 11_040;

/// `CUDA_ERROR_NO_BINARY_FOR_GPU`.
const NO_BINARY: u32 = 209;
/// `CUDA_ERROR_INVALID_PTX`.
const INVALID_PTX: u32 = 218;
/// `CUDA_ERROR_UNSUPPORTED_PTX_VERSION`.
const UNSUPPORTED_PTX: u32 = 222;

/// Blocks of the fingerprint kernel for each multiprocessor: enough loads are then under way to
/// keep its memory busy.
const BLOCKS_EACH: u32 = 4;

/// The refusal that the driver would give, if card or driver are too old.
pub(super) fn refusal(info: &DeviceInfo) -> Option<NoKernels> {
    let code = if info.compute_capability.is_none_or(|found| found < CAPABILITY_MIN) {
        NO_BINARY
    } else if info.driver_version.is_none_or(|found| found < DRIVER_MIN) {
        UNSUPPORTED_PTX
    } else {
        return None;
    };
    Some(NoKernels::Refused { code })
}

/// Takes scratch memory, and loads and tries the kernels that verify.
///
/// # Errors
///
/// [`NoKernels::Refused`] with code 2 if there is no room.
pub(super) fn first(port: &Port) -> Result<Offer, NoKernels> {
    let life = Life::new(port).map_err(|error| refused(&error))?;
    let loaded = port
        .bind(Some(life.epoch()))
        .and_then(|bound| load_first(&life).map_err(|code| bound.fail(code)));
    let (hash, fingerprint) = loaded.map_err(|error| refused(&error))?;
    let offer = Offer { life: Arc::new(life), hash, fingerprint, ciphers: None };
    tried(offer.life.lend(known::MEMORY_LEN, |memory| known::digests(&offer, memory)))?;
    Ok(offer)
}

/// Loads and tries the ciphers. Returns all kernels together.
pub(super) fn ciphers(port: &Port, first: &Offer) -> Result<Offer, NoKernels> {
    let life = &first.life;
    let loaded = port
        .bind(Some(life.epoch()))
        .and_then(|bound| load_ciphers(life).map_err(|code| bound.fail(code)));
    let ciphers = Some(loaded.map_err(|error| refused(&error))?);
    let offer = Offer { ciphers, ..first.clone() };
    tried(life.lend(known::MEMORY_LEN, |memory| known::ciphers(&offer, memory)))?;
    Ok(offer)
}

/// What the end of a trial means: the kernel that computed a wrong value, or none.
fn tried(answer: Result<Option<&'static str>, KernelError>) -> Result<(), NoKernels> {
    match answer {
        Ok(None) => Ok(()),
        Ok(Some(kernel)) => Err(NoKernels::WrongAnswer { kernel }),
        Err(KernelError::Device(error)) => Err(refused(&error)),
        // The trial's arguments fit.
        Err(KernelError::Unfit { .. }) => Err(NoKernels::Refused { code: codes::INVALID_VALUE }),
    }
}

/// What a refused call means for the kernels.
fn refused(error: &GpuError) -> NoKernels {
    match *error {
        GpuError::Lost { code, .. } | GpuError::Driver { code, sticky: true, .. } => {
            NoKernels::Lost { code }
        }
        GpuError::Driver { code, .. } => NoKernels::Refused { code },
        GpuError::OutOfMemory { .. } | GpuError::HostMemory { .. } => {
            NoKernels::Refused { code: codes::OUT_OF_MEMORY }
        }
        // A reset came between: they are loaded again.
        GpuError::StaleAllocation { .. } => NoKernels::Loading,
        _ => NoKernels::Refused { code: codes::INVALID_VALUE },
    }
}

/// Loads PTX that ends in a NUL into the bound context, and finds kernels in it. The life unloads
/// it.
fn load<T>(life: &Life, ptx: &str, find: impl FnOnce(&Module) -> Result<T, u32>) -> Result<T, u32> {
    let ptx = CStr::from_bytes_with_nul(ptx.as_bytes()).map_err(|_no_nul| INVALID_PTX)?;
    let module = Module::load(ptx)?;
    let found = find(&module);
    life.keep(module);
    found
}

fn load_first(life: &Life) -> Result<(HashKernels, FingerprintKernels), u32> {
    let device = life.port().core.device();
    let count = through_cust(|| device.get_attribute(DeviceAttribute::MultiprocessorCount))?;
    let blocks = u32::try_from(count).unwrap_or(1).max(1).saturating_mul(BLOCKS_EACH);
    let hash = load(life, BLAKE3, |module| {
        let items = module.function(c"blake3_items")?;
        Ok(HashKernels { items, merge: module.function(c"blake3_merge")? })
    })?;
    let fingerprint = load(life, FINGERPRINT, |module| {
        let one = module.function(c"fingerprint")?;
        Ok(FingerprintKernels { one, renew: module.function(c"fingerprint_renew")?, blocks })
    })?;
    Ok((hash, fingerprint))
}

fn load_ciphers(life: &Life) -> Result<CipherKernels, u32> {
    load(life, CHACHA, |module| {
        let tag = module.function(c"chacha_tag")?;
        let open = module.function(c"chacha_open")?;
        Ok(CipherKernels { tag, open, seal: module.function(c"chacha_seal")? })
    })
}
