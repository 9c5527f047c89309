//! A device for one test, launches on it, and bytes to launch over.

use core::ffi::c_void;

use cuda_sim::{DeviceSpec, Sim};
use cust::context::{Context, CurrentContext};
use cust::device::Device;
use cust::memory::{CopyDestination, DeviceBuffer};
use cust::module::Module;
use cust::stream::{Stream, StreamFlags};
use cust::sys;

/// Threads of a block, as the kernels want them.
pub(crate) const THREADS: u32 = 256;

/// A device of its own with an image loaded, current on this thread.
pub(crate) struct Card {
    pub(crate) device: u32,
    module: Module,
    stream: Stream,
    context: Context,
}

/// An argument of a launch.
#[derive(Clone, Copy)]
pub(crate) enum Argument {
    Word(u32),
    Address(u64),
}

impl Card {
    pub(crate) fn new(ptx: &str) -> Self {
        Self::with(DeviceSpec { capacity: 256 << 20, ..DeviceSpec::default() }, ptx)
    }

    pub(crate) fn with(spec: DeviceSpec, ptx: &str) -> Self {
        cuda_sim::install();
        let device = Sim::add_device(spec);
        cust::init(cust::CudaFlags::empty()).unwrap();
        let context = Context::new(Device::get_device(device).unwrap()).unwrap();
        CurrentContext::set_current(&context).unwrap();
        let module = Module::from_ptx(ptx, &[]).unwrap();
        let stream = Stream::new(StreamFlags::DEFAULT, None).unwrap();
        Self { device, module, stream, context }
    }

    /// Launches a kernel and waits for it. Returns the driver's code.
    pub(crate) fn launch(&self, kernel: &str, blocks: u32, arguments: &[Argument]) -> u32 {
        self.launch_shaped(kernel, [blocks, 1, 1], [THREADS, 1, 1], arguments)
    }

    /// The same with other blocks.
    pub(crate) fn launch_shaped(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        arguments: &[Argument],
    ) -> u32 {
        let function = self.module.get_function(kernel).unwrap();
        let mut values: Vec<u64> = arguments
            .iter()
            .map(|argument| match *argument {
                Argument::Word(word) => word.into(),
                Argument::Address(address) => address,
            })
            .collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| core::ptr::from_mut(value).cast()).collect();
        // SAFETY: one pointer an argument, each to at least as many bytes as the kernel takes; the
        // simulator checks every access of the kernel.
        let queued = unsafe {
            sys::cuLaunchKernel(
                function.to_raw(),
                grid[0],
                grid[1],
                grid[2],
                block[0],
                block[1],
                block[2],
                0,
                self.stream.as_inner(),
                pointers.as_mut_ptr(),
                core::ptr::null_mut(),
            )
        };
        if queued != sys::CUresult::CUDA_SUCCESS {
            return cuda_shim::last_raw_code();
        }
        match self.stream.synchronize() {
            Ok(()) => 0,
            Err(_) => cuda_shim::last_raw_code(),
        }
    }

    /// Ends the test: nothing is left, and nothing was misused.
    pub(crate) fn finish(self) {
        let Self { device, module, stream, context } = self;
        drop((module, stream, context));
        Sim::assert_clean(device);
    }

    pub(crate) const fn context(&self) -> &Context {
        &self.context
    }

    /// What the driver says of a kernel.
    pub(crate) fn attribute(&self, kernel: &str, attribute: i32) -> i32 {
        let function = self.module.get_function(kernel).unwrap();
        let mut value = -1;
        // SAFETY: `value` is valid for writing, and the enum has all the numbers that tests ask for.
        let attribute =
            unsafe { core::mem::transmute::<i32, sys::CUfunction_attribute_enum>(attribute) };
        // SAFETY: as above; the function lives as long as its module.
        let answer =
            unsafe { sys::cuFuncGetAttribute(&raw mut value, attribute, function.to_raw()) };
        assert_eq!(answer, sys::CUresult::CUDA_SUCCESS);
        value
    }

    /// Ends a test in which the context was lost.
    pub(crate) fn abandon(self) {
        self.abandon_with(|| ());
    }

    /// The same, with a look at the device right after its reset.
    pub(crate) fn abandon_with(self, look: impl FnOnce()) {
        let Self { device, module, stream, context } = self;
        core::mem::forget((module, stream));
        // SAFETY: what lived in the context was forgotten.
        unsafe { Context::reset(&Device::get_device(device).unwrap()) }.unwrap();
        look();
        drop(context);
        drop(Sim::take_misuse(device));
        Sim::retire_device(device);
    }
}

pub(crate) fn buffer(bytes: &[u8]) -> DeviceBuffer<u8> {
    DeviceBuffer::from_slice(bytes).unwrap()
}

pub(crate) fn at(buffer: &DeviceBuffer<u8>) -> Argument {
    Argument::Address(address(buffer))
}

pub(crate) fn address(buffer: &DeviceBuffer<u8>) -> u64 {
    buffer.as_device_ptr().as_raw()
}

pub(crate) fn read(buffer: &DeviceBuffer<u8>) -> Vec<u8> {
    let mut bytes = vec![0; buffer.len()];
    buffer.copy_to(&mut bytes).unwrap();
    bytes
}

/// Bytes that differ with each seed.
pub(crate) fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    (0..len.div_ceil(8)).flat_map(|_| dice.next().to_le_bytes()).take(len).collect()
}

/// Repeatable random numbers.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// Little-endian words and double words, one after the other: the layout of every struct of the
/// kernels.
#[derive(Default)]
pub(crate) struct Layout(pub(crate) Vec<u8>);

impl Layout {
    pub(crate) fn words(&mut self, words: &[u32]) -> &mut Self {
        self.0.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        self
    }

    pub(crate) fn doubles(&mut self, doubles: &[u64]) -> &mut Self {
        self.0.extend(doubles.iter().flat_map(|double| double.to_le_bytes()));
        self
    }
}

/// A length as the kernels take it.
pub(crate) fn word(len: usize) -> u32 {
    u32::try_from(len).unwrap()
}
