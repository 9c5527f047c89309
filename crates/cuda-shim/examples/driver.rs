//! Prints the CUDA driver of this machine, and its devices.
//!
//! ```text
//! cargo run -p cuda-shim --example driver
//! ```

#![expect(clippy::print_stdout, reason = "a command-line program")]

extern crate cuda_shim as _;

fn main() {
    println!("{}", cuda_shim::driver());
    match devices() {
        Ok(names) if names.is_empty() => println!("no device"),
        Ok(names) => {
            for (ordinal, name) in names.iter().enumerate() {
                println!("device {ordinal}: {name}");
            }
        }
        Err(error) => {
            let code = cuda_shim::last_raw_code();
            let name = cuda_shim::code_name(code).unwrap_or("no name known here");
            println!("no device: {error} (code {code}, {name})");
        }
    }
}

fn devices() -> Result<Vec<String>, cust::error::CudaError> {
    cust::init(cust::CudaFlags::empty())?;
    cust::device::Device::devices()?.map(|device| device?.name()).collect()
}
