package cuda

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"
)

// Bytes is the memory of a slice of plain numbers.
func Bytes[T int32 | uint64 | float32](s []T) []byte { return bytesOf(s) }

// Int32s, Uint64s and Float32s are bytes as numbers; they must be aligned.
func Int32s(b []byte) []int32     { return numbers[int32](b) }
func Uint64s(b []byte) []uint64   { return numbers[uint64](b) }
func Float32s(b []byte) []float32 { return numbers[float32](b) }

func numbers[T int32 | uint64 | float32](b []byte) []T {
	var x T
	if len(b) == 0 {
		return nil
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(x)))
}

// Ptr is an address in a device's memory.
type Ptr uint64

func textAt(c *cells) uintptr { return uintptr(unsafe.Pointer(&c.text[0])) }

// FreeMemory is how much memory the device has, and how much of it is free.
func (c *Context) FreeMemory() (free, total int64, err error) {
	if err := c.check(cuMemGetInfo, c.out.at(0), c.out.at(1)); err != nil {
		return 0, 0, fmt.Errorf("cannot read the GPU's free memory: %w", err)
	}
	return int64(c.out.n[0]), int64(c.out.n[1]), nil
}

// Alloc takes n bytes of device memory, aligned to 256.
func (c *Context) Alloc(n int) (Ptr, error) {
	if err := c.check(cuMemAlloc, c.out.at(0), uintptr(max(n, 1))); err != nil {
		return 0, c.allocFailure(n, err)
	}
	return Ptr(c.out.n[0]), nil
}

func (c *Context) allocFailure(n int, err error) error {
	if !errors.Is(err, ErrNoMemory) {
		return fmt.Errorf("cannot allocate %d bytes of GPU memory: %w", n, err)
	}
	free, total, memErr := c.FreeMemory()
	if memErr != nil {
		return errors.Join(err, memErr)
	}
	return fmt.Errorf("cannot allocate %d MiB of GPU memory, %d of %d MiB are free: %w; give the cache less (--kv-memory), use a smaller model, or free the GPU",
		n>>20, free>>20, total>>20, err)
}

// Free gives device memory back.
func (c *Context) Free(p Ptr) error { return c.check(cuMemFree, uintptr(p)) }

// AllocAsync and FreeAsync take from and give to the device's memory pool in
// stream order, without waiting for the device.
func (c *Context) AllocAsync(n int, s Stream) (Ptr, error) {
	if err := c.check(cuMemAllocAsync, c.out.at(0), uintptr(max(n, 1)), uintptr(s)); err != nil {
		return 0, c.allocFailure(n, err)
	}
	return Ptr(c.out.n[0]), nil
}

// FreeAsync gives memory of AllocAsync back once the stream gets there.
func (c *Context) FreeAsync(p Ptr, s Stream) error {
	return c.check(cuMemFreeAsync, uintptr(p), uintptr(s))
}

// poolReleaseThreshold is CU_MEMPOOL_ATTR_RELEASE_THRESHOLD.
const poolReleaseThreshold = 4

// KeepPool makes the memory pool keep up to n bytes instead of returning them at
// every synchronisation.
func (c *Context) KeepPool(n int) error {
	if err := c.check(cuDeviceGetDefaultMemPool, c.out.at(0), c.device); err != nil {
		return err
	}
	pool := uintptr(c.out.n[0])
	c.out.n[1] = uint64(n)
	return c.check(cuMemPoolSetAttribute, pool, poolReleaseThreshold, c.out.at(1))
}

// HostAlloc gives n bytes of pinned memory of the host: copies to and from it
// run at full speed and beside kernels. It is C's; FreeHost gives it back.
func (c *Context) HostAlloc(n int) ([]byte, error) {
	if n < 1 {
		return nil, nil
	}
	const portable = 1
	if err := c.check(cuMemHostAlloc, c.out.at(0), uintptr(n), portable); err != nil {
		return nil, fmt.Errorf("cannot pin %d MiB of host memory: %w", n>>20, err)
	}
	p := uintptr(c.out.n[0])
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&p)), n), nil
}

// FreeHost gives memory of HostAlloc back.
func (c *Context) FreeHost(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return c.check(cuMemFreeHost, address(b))
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Upload copies b to the device and waits for it. b may be any memory.
func (c *Context) Upload(dst Ptr, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	pin(b, func() { c.failed = c.check(cuMemcpyHtoDAsync, uintptr(dst), address(b), uintptr(len(b)), 0) })
	if c.failed != nil {
		return fmt.Errorf("cannot copy %d bytes to the GPU: %w", len(b), c.failed)
	}
	return c.Synchronize(0)
}

// Download copies device memory into b and waits for it.
func (c *Context) Download(b []byte, src Ptr) error {
	if len(b) == 0 {
		return nil
	}
	var err error
	pin(b, func() {
		if c.failed = c.check(cuMemcpyDtoHAsync, address(b), uintptr(src), uintptr(len(b)), 0); c.failed == nil {
			err = c.Synchronize(0)
		}
	})
	if c.failed != nil {
		return fmt.Errorf("cannot copy %d bytes from the GPU: %w", len(b), c.failed)
	}
	return err
}

// pin keeps Go memory in its place while f hands it to C. C memory needs none.
func pin(b []byte, f func()) {
	var p runtime.Pinner
	p.Pin(unsafe.SliceData(b))
	defer p.Unpin()
	f()
}

// UploadAsync and DownloadAsync copy pinned memory (HostAlloc) in stream order;
// the caller keeps it until the stream got there.
func (c *Context) UploadAsync(dst Ptr, pinned []byte, s Stream) error {
	return c.check(cuMemcpyHtoDAsync, uintptr(dst), address(pinned), uintptr(len(pinned)), uintptr(s))
}

// DownloadAsync is UploadAsync the other way.
func (c *Context) DownloadAsync(pinned []byte, src Ptr, s Stream) error {
	return c.check(cuMemcpyDtoHAsync, address(pinned), uintptr(src), uintptr(len(pinned)), uintptr(s))
}

// CopyAsync copies n bytes between places in device memory.
func (c *Context) CopyAsync(dst, src Ptr, n int, s Stream) error {
	return c.check(cuMemcpyDtoDAsync, uintptr(dst), uintptr(src), uintptr(n), uintptr(s))
}

// FillAsync sets n bytes of device memory.
func (c *Context) FillAsync(dst Ptr, value byte, n int, s Stream) error {
	return c.check(cuMemsetD8Async, uintptr(dst), uintptr(value), uintptr(n), uintptr(s))
}
