//! One bit flips on the way into device memory, and the driver reports success.
//!
//! ```text
//! cargo run -p cuda-sim --example one_bit
//! ```

#![expect(clippy::print_stdout, reason = "a command-line program")]

use cuda_sim::{CallKind, DeviceSpec, Fault, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::error::CudaError;
use cust::memory::{CopyDestination, DeviceBuffer};

fn main() -> Result<(), CudaError> {
    cuda_sim::install();
    let name = "Simulated H200".to_owned();
    let device = Sim::add_device(DeviceSpec { name, capacity: 1 << 30, ..DeviceSpec::default() });
    cust::init(cust::CudaFlags::empty())?;
    println!("{}", cuda_shim::driver());

    let gpu = Device::get_device(device)?;
    println!("device {device}: {}, {} bytes", gpu.name()?, gpu.total_memory()?);
    let context = Context::new(gpu)?;
    CurrentContext::set_current(&context)?;

    let weights = vec![0_u8; 1 << 20];
    Sim::faults(device).next(CallKind::CopyIn, Fault::FlipBit(8 * 4711 + 5));
    let buffer = DeviceBuffer::from_slice(&weights)?;
    println!("copied {} bytes in: the driver reports success", weights.len());

    let mut back = vec![0; weights.len()];
    buffer.copy_to(&mut back)?;
    let altered = weights.iter().zip(&back).position(|(sent, came)| sent != came);
    println!("first byte that differs: {altered:?}");

    drop((buffer, context));
    Sim::assert_clean(device);
    println!("device {device} is empty again, and was used well");
    Ok(())
}
