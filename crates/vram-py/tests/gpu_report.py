"""Python on a machine with a GPU: tensors in place, a forward pass beside the scrubber, its slowdown.

    python gpu_report.py [--device cuda:0] [--mib 4096] [--seconds 10]

Needs the wheel of this package, torch with CUDA and safetensors; `--device cpu` rehearses it on a host
device. It prints a report in Markdown, for docs/gpu-evidence.md, and fails if a check fails.
"""

import argparse
import gc
import os
import sys
import tempfile
import time

import safetensors.torch
import torch

import vram
import vram.torch

CHECKS = []


def check(what, held, note=""):
    CHECKS.append(bool(held))
    print(f"| {what} | {'holds' if held else '**FAILS**'} | {note} |", flush=True)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def blocks(width, layers, device, dtype):
    """Weights of a Llama-shaped stack, without attention over a history."""
    torch.manual_seed(1)
    weights = {}
    for layer in range(layers):
        for name, shape in (
            ("up", (4 * width, width)), ("gate", (4 * width, width)), ("down", (width, 4 * width)),
            ("qkv", (3 * width, width)), ("out", (width, width)),
        ):  # fmt: skip
            weights[f"layers.{layer}.{name}"] = (torch.randn(shape) * 0.02).to(dtype)
        weights[f"layers.{layer}.norm"] = torch.ones(width, dtype=dtype)
    return weights


def forward(weights, layers, x):
    for layer in range(layers):
        w = {name: weights[f"layers.{layer}.{name}"] for name in ("up", "gate", "down", "qkv", "out", "norm")}
        h = torch.nn.functional.rms_norm(x, x.shape[-1:], w["norm"])
        q, k, v = (h @ w["qkv"].t()).chunk(3, dim=-1)
        x = x + torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True) @ w["out"].t()
        h = torch.nn.functional.rms_norm(x, x.shape[-1:], w["norm"])
        x = x + (torch.nn.functional.silu(h @ w["gate"].t()) * (h @ w["up"].t())) @ w["down"].t()
    return x


def rate(run, device, seconds):
    """Runs a second."""
    run()
    synchronize(device)
    begun, count = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        run()
        synchronize(device)
        count += 1
    return count / (time.perf_counter() - begun)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--mib", type=int, default=4096)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a host device (rehearsal)"
    print(f"### Python, {time.strftime('%Y-%m-%d', time.gmtime())}: {name}\n")
    print(f"vram {vram.__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}\n")
    print("| check | | |\n|---|---|---|")

    width = 2048 if device.type == "cuda" else 256
    dtype = torch.bfloat16
    each = 16 * width * width * 2
    layers = max(1, (options.mib << 20) // each)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "blocks.safetensors")
        safetensors.torch.save_file(blocks(width, layers, device, dtype), path)
        size = os.path.getsize(path)
        room = size + (64 << 20)
        if device.type == "cuda":
            manager = vram.Manager.cuda([device.index or 0], budget=room)
        else:
            manager = vram.Manager.host([room])

        begun = time.perf_counter()
        theirs = safetensors.torch.load_file(path, device=options.device)
        synchronize(device)
        theirs_took = time.perf_counter() - begun
        begun = time.perf_counter()
        model = manager.load(path, name="blocks", holder="report")
        load_took = time.perf_counter() - begun
        begun = time.perf_counter()
        mine = vram.torch.tensors(model)
        views_took = time.perf_counter() - begun

        same = all(torch.equal(bits(mine[one]), bits(theirs[one])) for one in theirs)
        check("every tensor is that of safetensors, to the bit", same and set(mine) == set(theirs), f"{size / 1e9:.2f} GB")
        again = torch.from_dlpack(model["layers.0.up"])
        check("`torch.from_dlpack` is in place", again.data_ptr() == mine["layers.0.up"].data_ptr())
        check("the tensors are on the device", all(one.device.type == device.type for one in mine.values()))
        if device.type == "cuda":
            interface = model["layers.0.up"]
            check(
                "the type says what `__cuda_array_interface__` cannot: bfloat16 has none",
                not hasattr(interface, "__cuda_array_interface__") and interface.dtype == "bfloat16",
            )
        x = torch.randn(1, 256, width, dtype=dtype, device=device)
        with torch.no_grad():
            out, want = forward(mine, layers, x), forward(theirs, layers, x)
            check("a forward pass gives the same, to the bit", torch.equal(out, want))
            alone = rate(lambda: forward(mine, layers, x), device, options.seconds)
            copied = rate(lambda: forward(theirs, layers, x), device, options.seconds)
            manager.scrub(within=30.0, pass_at_least=1.0)
            slow = rate(lambda: forward(mine, layers, x), device, options.seconds)
            manager.scrub(share=1.0, pass_at_least=0.001)
            flat_out = rate(lambda: forward(mine, layers, x), device, options.seconds)
            status = manager.scrub_status()
            check("beside the scrubber it gives the same", torch.equal(forward(mine, layers, x), want))
        try:
            model.park()
            check("parking under live tensors is refused", False)
        except vram.InUse as error:
            check("parking under live tensors is refused", error.holder == "report", str(error)[:80])
        verdict = model.verify()
        check("sound after all of it", verdict.content, repr(verdict))

        manager.scrub(within=2.0, pass_at_least=0.1)
        events = manager.events(timeout=30)
        time.sleep(2.5)
        stated = manager.scrub_status()["worst_case"]
        begun = time.perf_counter()
        mine["layers.0.out"].reshape(-1)[7:8].view(torch.int16).bitwise_xor_(1)
        synchronize(device)
        found = next((event for event in events if event.name == "quarantined"), None)
        took = time.perf_counter() - begun
        check(
            "a bit that flips under a live tensor is found in the stated time",
            found and found.tensor == "layers.0.out" and took <= (stated or 0) + 1,
            f"{took:.2f} s, stated {stated}",
        )
        try:
            model["layers.0.out"]
            check("its tensor is in quarantine", False)
        except vram.IntegrityError as error:
            check("its tensor is in quarantine", error.code == "quarantined")
        manager.stop_scrub()
        del mine, again, out
        gc.collect()
        freed = model.free()
        check("all of it comes back", manager.memory()[0] == 0 and freed >= size * 0.99)
        check("the manager closes whole", manager.close(10)["complete"])

    print("\n| measured | |\n|---|---|")
    print(f"| safetensors.torch.load_file to {options.device} | {theirs_took:.2f} s, {size / theirs_took / 1e9:.2f} GB/s |")
    print(f"| load, sealed and read back | {load_took:.2f} s, {load_took / theirs_took:.2f} x |")
    print(f"| {len(theirs)} views, as torch tensors | {views_took * 1e3:.1f} ms |")
    print(f"| forward passes a second, weights of safetensors | {copied:.2f} |")
    print(f"| with leased weights | {alone:.2f} ({alone / copied:.3f} x) |")
    print(f"| beside a scrubber of 30 s | {slow:.2f} ({slow / alone:.3f} x) |")
    rate_seen = status["rate_seen"] / 1e9
    print(f"| beside one as fast as it can | {flat_out:.2f} ({flat_out / alone:.3f} x), at {rate_seen:.1f} GB/s |")
    sys.exit(0 if all(CHECKS) else 1)


if __name__ == "__main__":
    main()
