package cuda

import (
	"errors"
	"fmt"
	"math"
	"unsafe"
)

// DType is an element type of cuBLASLt (cudaDataType).
type DType int

// The element types of linear layers.
const (
	F32  DType = 0
	F16  DType = 2
	BF16 DType = 14
)

// blasPaths is where cuBLASLt may lie. Python environments keep it beside their
// packages: such a folder can be named with OpenBLAS.
var blasPaths = []string{
	"libcublasLt.so.13", "/usr/local/cuda/lib64/libcublasLt.so.13",
	"libcublasLt.so.12", "/usr/local/cuda/lib64/libcublasLt.so.12",
}

// blasLt is cuBLASLt with what its calls need.
type blasLt struct {
	c         *Context
	lib       caller
	handle    uintptr
	workspace Ptr
	plans     map[planKey]*plan
	args      *blasArgs
}

// blasArgs is memory that cuBLASLt reads and writes during a call.
type blasArgs struct {
	out         [4]uint64
	value       uint64
	alpha, beta float32
	result      [96]byte // cublasLtMatmulHeuristicResult_t: the algorithm comes first
}

const (
	blasWorkspace = 32 << 20

	compute32F = 68 // CUBLAS_COMPUTE_32F

	descTransA    = 3 // CUBLASLT_MATMUL_DESC_TRANSA
	prefWorkspace = 1 // CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
)

// planKey is what decides how a product is computed.
type planKey struct {
	rows, in, out int
	x, y          DType
}

// plan is a product ready to run.
type plan struct {
	desc, w, x, y uintptr
	algo          [64]byte
}

// OpenBLAS loads cuBLASLt, version 13 or 12, from dirs (as of a Python
// environment's nvidia/*/lib), then from the system.
func (c *Context) OpenBLAS(dirs ...string) (version int, err error) {
	var paths []string
	for _, d := range dirs {
		paths = append(paths, d+"/libcublasLt.so.13", d+"/libcublasLt.so.12")
	}
	lib, _, err := openLibrary(append(paths, blasPaths...), numDriver, numEntries)
	if err != nil {
		return 0, fmt.Errorf("cannot load cuBLASLt: %w: %w; install CUDA 12 or 13's cuBLAS (libcublas-12, libcublas-13, or pip's nvidia-cublas) where the system's loader finds it, or use --device cpu", ErrNoBLAS, err)
	}
	return c.startBLAS(lib)
}

func (c *Context) startBLAS(lib caller) (int, error) {
	b := &blasLt{c: c, lib: lib, plans: map[planKey]*plan{}, args: new(blasArgs)}
	if err := b.check(ltCreate, b.outAt(0)); err != nil {
		return 0, fmt.Errorf("cannot start cuBLASLt: %w", err)
	}
	b.handle = uintptr(b.args.out[0])
	var err error
	if b.workspace, err = c.Alloc(blasWorkspace); err != nil {
		return 0, errors.Join(err, b.check(ltDestroy, b.handle))
	}
	c.blas = b
	return int(lib.call(ltGetVersion)), nil
}

// Linear puts y = x·Wᵀ + beta·y into the stream: x is [rows][in], W [out][in]
// and y [rows][out], row-major; x and W of type in, y of type out. Sums are
// float32.
func (c *Context) Linear(y, x, w Ptr, rows, in, out int, xType, yType DType, beta float32, s Stream) error {
	b := c.blas
	if b == nil {
		return fmt.Errorf("cannot multiply matrices: %w", ErrNoBLAS)
	}
	p, err := b.plan(planKey{rows, in, out, xType, yType})
	if err != nil {
		return fmt.Errorf("cannot plan a product of [%d,%d] with [%d,%d]: %w", rows, in, out, in, err)
	}
	a := b.args
	a.alpha, a.beta = 1, beta
	copy(a.result[:], p.algo[:])
	return b.check(ltMatmul, b.handle, p.desc, uintptr(unsafe.Pointer(&a.alpha)), uintptr(w), p.w, uintptr(x), p.x,
		uintptr(unsafe.Pointer(&a.beta)), uintptr(y), p.y, uintptr(y), p.y,
		uintptr(unsafe.Pointer(&a.result[0])), uintptr(b.workspace), uintptr(blasWorkspace), uintptr(s))
}

func (b *blasLt) outAt(i int) uintptr { return uintptr(unsafe.Pointer(&b.args.out[i])) }

// plan describes a product to cuBLASLt, whose matrices are column-major: ours,
// row-major, are their transposes, so that it computes yᵀ = W·xᵀ with W's
// transpose transposed.
func (b *blasLt) plan(k planKey) (*plan, error) {
	if p := b.plans[k]; p != nil {
		return p, nil
	}
	p := new(plan)
	if err := b.describe(k, p); err != nil {
		return nil, errors.Join(err, b.closePlan(p))
	}
	b.plans[k] = p
	return p, nil
}

func (b *blasLt) describe(k planKey, p *plan) error {
	if err := b.check(ltDescCreate, b.outAt(0), compute32F, uintptr(F32)); err != nil {
		return err
	}
	p.desc = uintptr(b.args.out[0])
	b.args.value = 1 // CUBLAS_OP_T, an int
	if err := b.check(ltDescSet, p.desc, descTransA, uintptr(unsafe.Pointer(&b.args.value)), 4); err != nil {
		return err
	}
	for _, l := range []struct {
		dst        *uintptr
		t          DType
		rows, cols int
	}{{&p.w, k.x, k.in, k.out}, {&p.x, k.x, k.in, k.rows}, {&p.y, k.y, k.out, k.rows}} {
		if err := b.check(ltLayoutCreate, b.outAt(0), uintptr(l.t), uintptr(l.rows), uintptr(l.cols), uintptr(l.rows)); err != nil {
			return err
		}
		*l.dst = uintptr(b.args.out[0])
	}
	return b.choose(p)
}

// choose asks for the algorithm.
func (b *blasLt) choose(p *plan) error {
	if err := b.check(ltPreferenceCreate, b.outAt(0)); err != nil {
		return err
	}
	pref := uintptr(b.args.out[0])
	b.args.value = blasWorkspace
	err := b.check(ltPreferenceSet, pref, prefWorkspace, uintptr(unsafe.Pointer(&b.args.value)), 8)
	if err == nil {
		b.args.out[1] = 0
		err = b.check(ltHeuristic, b.handle, p.desc, p.w, p.x, p.y, p.y, pref, 1, uintptr(unsafe.Pointer(&b.args.result[0])), b.outAt(1))
	}
	if err == nil && uint32(b.args.out[1]) == 0 {
		err = errors.New("cuBLASLt knows no algorithm for it")
	}
	copy(p.algo[:], b.args.result[:])
	return errors.Join(err, b.check(ltPreferenceDestroy, pref))
}

func (b *blasLt) closePlan(p *plan) error {
	var errs []error
	for _, l := range []uintptr{p.w, p.x, p.y} {
		if l != 0 {
			errs = append(errs, b.check(ltLayoutDestroy, l))
		}
	}
	if p.desc != 0 {
		errs = append(errs, b.check(ltDescDestroy, p.desc))
	}
	return errors.Join(errs...)
}

func (b *blasLt) close() error {
	var errs []error
	for _, p := range b.plans {
		errs = append(errs, b.closePlan(p))
	}
	return errors.Join(append(errs, b.c.Free(b.workspace), b.check(ltDestroy, b.handle))...)
}

// blasStatus names cublasStatus_t.
var blasStatus = map[uintptr]string{
	1: "CUBLAS_STATUS_NOT_INITIALIZED", 3: "CUBLAS_STATUS_ALLOC_FAILED", 7: "CUBLAS_STATUS_INVALID_VALUE",
	8: "CUBLAS_STATUS_ARCH_MISMATCH", 11: "CUBLAS_STATUS_MAPPING_ERROR", 13: "CUBLAS_STATUS_EXECUTION_FAILED",
	14: "CUBLAS_STATUS_INTERNAL_ERROR", 15: "CUBLAS_STATUS_NOT_SUPPORTED", 16: "CUBLAS_STATUS_LICENSE_ERROR",
}

func (b *blasLt) check(e entry, args ...uintptr) error {
	code := b.lib.call(e, args...)
	if code == 0 {
		return nil
	}
	name := blasStatus[code]
	if name == "" {
		name = "unknown status"
	}
	return &Error{Call: symbols[e], Code: int(code), Name: name, Text: "see cuBLASLt's documentation"}
}

// paramBytes is a kernel parameter's bytes.
func paramBytes[T any](p *T) []byte {
	if unsafe.Sizeof(*p) > maxParams {
		panic(fmt.Sprintf("BUG: kernel parameters of %d bytes", unsafe.Sizeof(*p)))
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Sizeof(*p))
}

// log2e turns exponents of e into exponents of 2.
const log2e = math.Log2E
