//! How fast the kernels are: alone in one launch, by the driver's clock; and through the library,
//! with lists that go up and results that come down. Beside them a copy within the device, of the
//! same bytes in the same run, and what was predicted from the machine code.

use cust::memory::{CopyDestination, DeviceBuffer};
use vram_alloc::{ByteLen, DeviceRange};
use vram_gpu::kernels::{CipherSpan, HashSpan};
use vram_gpu::{CudaDevice, Device};

use super::raw::{Kernel, Module, copy, milliseconds};
use super::{cipher_keys, cipher_span, fingerprint_key, hash_span, kernels, most, range, told};
use crate::facts::raw::{Stream, buffer};
use crate::machine;
use crate::measure::{mib, noise, timed};
use crate::rows::row;

/// Measured rounds, after two to warm up.
const ROUNDS: usize = 10;

/// Bytes of an item, and of a segment.
const ITEM: u64 = 256 << 10;

/// What was predicted of a kernel.
#[derive(Clone, Copy)]
enum Predicted {
    /// GB/s, at the least.
    Rate(f64),
    /// This share of the copy's bytes a second, of which it reads and writes each once.
    ShareOfCopy(f64),
    Nothing,
}

/// Rates of a row, and the copy that it stands beside.
struct Table<'d> {
    device: &'d CudaDevice,
    len: ByteLen,
    /// GB/s that the copy reads and writes together.
    copy: f64,
}

impl Table<'_> {
    /// Measures and prints a row; returns GB/s. `bytes` are what it reads and writes.
    fn measure(
        &self,
        what: &str,
        bytes: u64,
        predicted: Predicted,
        mut milliseconds: impl FnMut() -> f64,
    ) -> f64 {
        milliseconds();
        milliseconds();
        let mut times: Vec<f64> = (0..ROUNDS).map(|_| milliseconds().max(1e-6)).collect();
        times.sort_by(f64::total_cmp);
        let rate = |time: f64| bytes as f64 / time / 1e6;
        let median = rate(f64::midpoint(times[ROUNDS / 2 - 1], times[ROUNDS / 2]));
        let share = if self.copy > 0.0 { median / self.copy } else { 1.0 };
        let met = |met: bool| if met { "met" } else { "missed" };
        let predicted = match predicted {
            Predicted::Rate(least) => format!("{least:.0} GB/s: {}", met(median >= least)),
            Predicted::ShareOfCopy(least) => format!("{least:.2} of it: {}", met(share >= least)),
            Predicted::Nothing => String::new(),
        };
        let range = format!("{:.1} to {:.1}", rate(times[ROUNDS - 1]), rate(times[0]));
        let (median_text, share) = (format!("{median:.1}"), format!("{share:.3}"));
        told(self.device, &mib(self.len), what, [&median_text, &range, &share, &predicted]);
        median
    }
}

/// Device memory with a list in it.
fn list(words: impl IntoIterator<Item = u64>) -> DeviceBuffer<u64> {
    DeviceBuffer::from_slice(&words.into_iter().collect::<Vec<_>>()).unwrap()
}

/// Two numbers of 32 bits in one word, as the device reads them.
fn pair(first: u64, second: u64) -> u64 {
    first | second << 32
}

#[test]
fn kernels_alone_are_this_fast() {
    for device in machine::devices() {
        alone(&device);
    }
}

fn needs(device: &CudaDevice, name: &str, kernel: Kernel) {
    let needs = kernel.needs();
    let blocks = needs.blocks.map_or_else(|code| format!("code {code}"), |count| count.to_string());
    let gpu = machine::name(device);
    row("function", &[&gpu, &name, &needs.registers, &needs.local, &needs.shared, &blocks]);
}

fn module(device: &CudaDevice, name: &str, ptx: &str) -> Module {
    let (module, seconds) = Module::load(ptx);
    let (what, time) =
        (format!("{name}.ptx loaded again, {} bytes", ptx.len()), format!("{seconds:.3} s"));
    told(device, "", &what, [&time, &"", &"", &""]);
    module
}

#[expect(clippy::too_many_lines, reason = "one kernel after another")]
fn alone(device: &CudaDevice) {
    let len = most(device);
    let count = len.get() / ITEM;
    let _context = crate::plain::context(device.ordinal());
    let stream = Stream::new(false);
    let (data, other) = (buffer(len.get() as usize), buffer(len.get() as usize));
    let (at, to) = (data.as_device_ptr().as_raw(), other.as_device_ptr().as_raw());
    fill(&data, &stream);
    let bytes = len.get();
    let size = bytes as usize;

    let mut table = Table { device, len, copy: 0.0 };
    table.copy = table.measure(
        "copy within the device, read and written",
        2 * bytes,
        Predicted::Nothing,
        || {
            // SAFETY: two buffers of this length.
            milliseconds(&stream, |stream| unsafe { copy(to, at, size, stream) })
        },
    );

    let blake3 =
        module(device, "blake3", include_str!("../../../../crates/vram-gpu/kernels/blake3.ptx"));
    let (hash, merge) = (blake3.kernel(c"blake3_items"), blake3.kernel(c"blake3_merge"));
    needs(device, "blake3_items", hash);
    needs(device, "blake3_merge", merge);
    let items = list((0..count).flat_map(|i| [at + i * ITEM, i << 8, pair(ITEM, i), pair(8, 0)]));
    let values = buffer(count as usize * 32);
    let parameters = [items.as_device_ptr().as_raw(), values.as_device_ptr().as_raw(), 1];
    table.measure("blake3_items alone", bytes, Predicted::Rate(1300.0), || {
        // SAFETY: as many items as blocks, over the buffer; a value for each.
        milliseconds(&stream, |_| unsafe { hash.launch(count as usize, &stream, parameters) })
    });

    let prints = module(
        device,
        "fingerprint",
        include_str!("../../../../crates/vram-gpu/kernels/fingerprint.ptx"),
    );
    let (one, two) = (prints.kernel(c"fingerprint"), prints.kernel(c"fingerprint_renew"));
    needs(device, "fingerprint", one);
    needs(device, "fingerprint_renew", two);
    let items = list((0..count).flat_map(|i| [at + i * ITEM, pair(ITEM, i)]));
    let random = noise(ByteLen::new(64 << 10));
    let keys = DeviceBuffer::from_slice(&random).unwrap();
    let (items, key, out) = (
        items.as_device_ptr().as_raw(),
        keys.as_device_ptr().as_raw(),
        values.as_device_ptr().as_raw(),
    );
    let processors: usize = cust::device::Device::get_device(device.ordinal())
        .and_then(|device| device.get_attribute(cust::device::DeviceAttribute::MultiprocessorCount))
        .unwrap()
        .try_into()
        .unwrap();
    for each in [1, 2, 4, 8] {
        let blocks = (processors * each).min(count as usize);
        let what = format!("fingerprint alone, {each} blocks a multiprocessor");
        table.measure(&what, bytes, Predicted::ShareOfCopy(0.85), || {
            // SAFETY: `count` items over the buffer, a key, a value for each item.
            milliseconds(&stream, |_| unsafe {
                one.launch(blocks, &stream, [items, count, key, out]);
            })
        });
        let what = format!("fingerprint_renew alone, {each} blocks a multiprocessor");
        table.measure(&what, bytes, Predicted::Nothing, || {
            let parameters = [items, count, key, key + (32 << 10), out];
            // SAFETY: as above, with two keys and two values an item.
            milliseconds(&stream, |_| unsafe { two.launch(blocks, &stream, parameters) })
        });
    }

    let chacha =
        module(device, "chacha", include_str!("../../../../crates/vram-gpu/kernels/chacha.ptx"));
    let (seal, tag, open) = (
        chacha.kernel(c"chacha_seal"),
        chacha.kernel(c"chacha_tag"),
        chacha.kernel(c"chacha_open"),
    );
    for (name, kernel) in [("chacha_seal", seal), ("chacha_tag", tag), ("chacha_open", open)] {
        needs(device, name, kernel);
    }
    let segments = |from: u64, to: u64| {
        list((0..count).flat_map(|i| [from + i * ITEM, to + i * ITEM, pair(ITEM, i), 1]))
    };
    let (there, back) = (segments(at, to), segments(to, at));
    let keys = DeviceBuffer::from_slice(&cipher_keys(count as usize).concat()).unwrap();
    let (tags, verdicts) = (buffer(count as usize * 16), buffer(count as usize * 4));
    let [there, back] = [&there, &back].map(|list| list.as_device_ptr().as_raw());
    let [keys, tags_at, words] =
        [&keys, &tags, &verdicts].map(|list| list.as_device_ptr().as_raw());
    table.measure("chacha_seal alone", bytes, Predicted::Nothing, || {
        // SAFETY: as many segments, keys and tags as blocks; segments over both buffers.
        milliseconds(&stream, |_| unsafe {
            seal.launch(count as usize, &stream, [there, keys, tags_at, 1]);
        })
    });
    table.measure("chacha_tag alone", bytes, Predicted::Nothing, || {
        // SAFETY: as above.
        milliseconds(&stream, |_| unsafe {
            tag.launch(count as usize, &stream, [back, keys, tags_at, 1]);
        })
    });
    table.measure(
        "chacha_open alone, tag first, then decrypted",
        bytes,
        Predicted::Rate(600.0),
        || {
            let parameters = [back, keys, tags_at, words, 1];
            // SAFETY: as above, with a verdict for each segment.
            milliseconds(&stream, |_| unsafe { open.launch(count as usize, &stream, parameters) })
        },
    );
    let mut told = vec![0_u8; count as usize * 4];
    verdicts.copy_to(&mut told).unwrap();
    let good = told.as_chunks().0.iter().all(|word| u32::from_le_bytes(*word) == 0x600D_600D);
    assert!(good, "a good segment was refused");
    let pattern = noise(ByteLen::new(bytes.min(PATTERN)));
    let mut opened = vec![0; pattern.len()];
    data.index(0..pattern.len()).copy_to(&mut opened).unwrap();
    assert!(opened == pattern, "what was opened is not what was sealed");
}

/// Bytes of noise that a buffer is filled with, again and again.
const PATTERN: u64 = 64 << 20;

fn fill(data: &DeviceBuffer<u8>, stream: &Stream) {
    let pattern = noise(ByteLen::new((data.len() as u64).min(PATTERN)));
    let mut done = pattern.len();
    data.index(0..done).copy_from(&pattern).unwrap();
    let start = data.as_device_ptr().as_raw();
    while done < data.len() {
        let len = done.min(data.len() - done);
        // SAFETY: both ranges lie in the buffer, and are apart.
        milliseconds(stream, |stream| unsafe { copy(start + done as u64, start, len, stream) });
        done += len;
    }
}

#[test]
fn the_library_is_this_fast() {
    for device in machine::devices() {
        through_the_library(&device);
    }
}

fn through_the_library(device: &CudaDevice) {
    let len = most(device);
    let (bytes, count) = (len.get(), len.get() / ITEM);
    let kernels = kernels(device);
    let (memory, other) = (device.allocate(len).unwrap(), device.allocate(len).unwrap());
    let whole = DeviceRange::whole(len);
    // Noise that repeats itself is as good: no kernel's time depends on content.
    let pattern = noise(ByteLen::new(bytes.min(PATTERN)));
    let mut at = 0;
    while at < bytes {
        let part = (bytes - at).min(pattern.len() as u64);
        memory.write(range(at, part), &pattern[..part as usize]).unwrap();
        at += part;
    }
    let wall = |work: &mut dyn FnMut()| timed(work).as_secs_f64() * 1e3;
    let mut table = Table { device, len, copy: 0.0 };
    let rate = table.measure(
        "copy within the device by the library, read and written",
        2 * bytes,
        Predicted::Nothing,
        || wall(&mut || other.copy_from(whole, &*memory, whole).unwrap()),
    );
    table.copy = rate;

    let spans: Vec<HashSpan> =
        (0..count).map(|i| hash_span(i * ITEM, ITEM, i << 8, false)).collect();
    table.measure("hash, values of 256 KiB", bytes, Predicted::Rate(1300.0), || {
        wall(&mut || drop(kernels.hash(&*memory, &spans).unwrap()))
    });
    let long = (16 << 20_u64).min(bytes);
    let spans: Vec<HashSpan> =
        (0..bytes / long).map(|i| hash_span(i * long, long, i * (long >> 10), false)).collect();
    table.measure("hash, values of 16 MiB", bytes / long * long, Predicted::Rate(1300.0), || {
        wall(&mut || drop(kernels.hash(&*memory, &spans).unwrap()))
    });
    let spans: Vec<HashSpan> =
        (0..bytes >> 16).map(|i| hash_span(i << 16, 1 << 16, i << 6, false)).collect();
    table.measure("hash, values of 64 KiB", bytes, Predicted::Nothing, || {
        wall(&mut || drop(kernels.hash(&*memory, &spans).unwrap()))
    });
    let spans: Vec<DeviceRange> = (0..count).map(|i| range(i * ITEM, ITEM)).collect();
    let (old, new) = (fingerprint_key(1), fingerprint_key(2));
    table.measure("fingerprint", bytes, Predicted::ShareOfCopy(0.85), || {
        wall(&mut || drop(kernels.fingerprint(&*memory, &spans, &old, None).unwrap()))
    });
    table.measure("fingerprint, and a new one", bytes, Predicted::Nothing, || {
        wall(&mut || drop(kernels.fingerprint(&*memory, &spans, &old, Some(&new)).unwrap()))
    });
    let spans: Vec<CipherSpan> =
        (0..count).map(|i| cipher_span(i * ITEM, ITEM, i * ITEM, i as u32)).collect();
    let keys = cipher_keys(spans.len());
    let mut tags = Vec::new();
    table.measure("seal to another place, segments of 256 KiB", bytes, Predicted::Nothing, || {
        wall(&mut || tags = kernels.seal(&*memory, &*other, &spans, &keys).unwrap())
    });
    table.measure("tags", bytes, Predicted::Nothing, || {
        wall(&mut || assert!(kernels.tags(&*other, &spans, &keys).unwrap() == tags))
    });
    table.measure("open to another place", bytes, Predicted::Rate(600.0), || {
        wall(&mut || {
            let good = kernels.open(&*other, &*memory, &spans, &keys, &tags).unwrap();
            assert!(good.iter().all(|good| *good), "a good segment was refused");
        })
    });
    let mut opened = vec![0; pattern.len()];
    memory.read(range(0, pattern.len() as u64), &mut opened).unwrap();
    assert!(opened == pattern, "what was opened is not what was sealed");
    memory.free().unwrap();
    other.free().unwrap();
    assert!(device.state().is_ready());
}
