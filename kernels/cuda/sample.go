package cuda

import "unsafe"

// Draw is how the token after a row of logits is drawn (src/sample.cuh, DrawRow): as
// package sample does, of which it has the random number too.
type Draw struct {
	U          float64 // of [0, 1)
	Scale      float32 // 1 / temperature
	TopP, MinP float32 // 0: all
	TopK       int32   // 0: all
	Draws      int32   // 0: the row keeps its most likely token
	_          int32
}

// DrawBytes is a Draw's size on the device.
const DrawBytes = int(unsafe.Sizeof(Draw{}))

// Draws is the bytes as draws; they must be aligned.
func Draws(b []byte) []Draw {
	if len(b) < DrawBytes {
		return nil
	}
	return unsafe.Slice((*Draw)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/DrawBytes)
}

type drawParams struct {
	X, Out, Rows Ptr
	N, _         int32
}

// drawShared is at least the kernel's shared memory (Draw::Shared).
const drawShared = 2048*12 + 2*32*8 + 64

// Drawer draws tokens.
type Drawer struct{ f Function }

// NewDrawer finds the kernel.
func (c *Context) NewDrawer(m Module) (*Drawer, error) {
	f, err := c.Function(m, "draw_token", drawShared)
	return &Drawer{f}, err
}

// Draw puts the drawing of a token of each of some rows of n logits into the stream:
// out ([row] int32) has the most likely tokens (Argmax) and gets what is drawn, as
// how ([row] Draw) says.
func (c *Context) Draw(d *Drawer, out, x, how Ptr, rows, n int, s Stream) error {
	p := drawParams{X: x, Out: out, Rows: how, N: int32(n)}
	return c.Launch(d.f, Shape{Grid: [3]int{rows, 1, 1}, Block: rowThreads, Shared: drawShared}, s, paramBytes(&p))
}
