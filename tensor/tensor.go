package tensor

import "fmt"

// DType is an element type, plain or block-quantised.
type DType uint8

// The element types that model files carry. Block types follow GGUF.
const (
	F32 DType = iota + 1
	F16
	BF16
	Q8_0
	Q4_0
	Q4_K
	Q5_K
	Q6_K
)

// dtypes is by DType; the kernels ask for sizes often.
var dtypes = [...]struct {
	name         string
	elems, bytes int
}{
	F32: {"F32", 1, 4}, F16: {"F16", 1, 2}, BF16: {"BF16", 1, 2},
	Q8_0: {"Q8_0", 32, 34}, Q4_0: {"Q4_0", 32, 18},
	Q4_K: {"Q4_K", 256, 144}, Q5_K: {"Q5_K", 256, 176}, Q6_K: {"Q6_K", 256, 210},
}

func (d DType) known() bool { return d > 0 && int(d) < len(dtypes) }

func (d DType) String() string {
	if d.known() {
		return dtypes[d].name
	}
	return fmt.Sprintf("DType(%d)", uint8(d))
}

// Block is the smallest addressable run of d, elements and bytes: none of a type
// that is not known.
func (d DType) Block() (elems, bytes int) {
	if !d.known() {
		return 0, 0
	}
	return dtypes[d].elems, dtypes[d].bytes
}

// RowBytes is the size of n elements of d; n must be a whole number of blocks.
func (d DType) RowBytes(n int) int { t := &dtypes[d]; return n / t.elems * t.bytes }

// Tensor is a named array over bytes it does not own (often a memory map).
// Row-major: the last dimension is contiguous. Little endian.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	Data  []byte
}

// Elems is the number of elements of the shape.
func (t Tensor) Elems() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Row is the bytes of row i of a matrix (everything but the last dimension
// flattened into rows).
func (t Tensor) Row(i int) []byte {
	n := t.DType.RowBytes(t.Shape[len(t.Shape)-1])
	return t.Data[i*n : (i+1)*n : (i+1)*n]
}
