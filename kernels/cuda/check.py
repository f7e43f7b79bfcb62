"""What PyTorch's attention takes for the shapes of TestTable, timed the same way:
medians between CUDA events, behind a kernel that reads 512 MiB."""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

flush = torch.ones(128 << 20, dtype=torch.int32, device="cuda")


def median(f, runs=31):
    a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    times = []
    for i in range(runs + 3):
        flush.max()
        a.record()
        f()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b) * 1000)
    return sorted(times[3:])[runs // 2]


def backends(shape, q, k, v, causal, runs=31):
    row = []
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
        try:
            with sdpa_kernel(backend):
                row.append("%9.1f" % median(lambda: sdpa(q, k, v, is_causal=causal, enable_gqa=True), runs))
        except Exception as e:
            row.append("%9s" % type(e).__name__)
    print("%-16s cuDNN %s µs  FlashAttention %s µs" % (shape, *row), flush=True)


print(torch.cuda.get_device_name(), "torch", torch.__version__, "BF16")
for heads, kv, batch, n in [(32, 8, 1, 2), (32, 8, 1, 4), (32, 8, 1, 16), (32, 8, 1, 32), (32, 8, 1, 128), (32, 8, 8, 32), (32, 8, 24, 32), (32, 8, 32, 32), (64, 8, 1, 2), (64, 8, 1, 16), (64, 8, 1, 32), (64, 8, 1, 128)]:
    new = lambda h, t: torch.randn(batch, h, t, 128, device="cuda", dtype=torch.bfloat16)
    backends("%d/%d B%d %dK" % (heads, kv, batch, n), new(heads, 1), new(kv, n << 10), new(kv, n << 10), False)
for n in (16, 32):
    new = lambda h: torch.randn(1, h, n << 10, 128, device="cuda", dtype=torch.bfloat16)
    backends("prefill 32/8 %dK" % n, new(32), new(8), new(8), True, 7)
