package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/tensor"
	"github.com/terse-llm/terse/tensor/blocks"
)

// Model is a model's weights in a GPU's memory.
type Model struct {
	gpu      *GPU
	config   model.Config
	products cuda.DType // of matrices: BF16 or F16
	context  int        // positions that there are angles for
	embed    cuda.Ptr
	head     cuda.Ptr
	norm     cuda.Ptr
	cos, sin cuda.Ptr // [position][pairs] float32
	layers   []layer
	owned    []cuda.Ptr
}

// layer is one layer's weights. Matrices that read the same rows lie one behind
// the other, to be multiplied at once.
type layer struct {
	attnNorm, mlpNorm cuda.Ptr
	qkv, out          cuda.Ptr
	gateUp, down      cuda.Ptr
	qNorm, kNorm      cuda.Ptr // 0 where there are none, as the biases
	qkvBias, outBias  cuda.Ptr
	gateUpBias        cuda.Ptr
	downBias          cuda.Ptr
}

// Load puts weights into the GPU's memory, for texts of up to context tokens:
// bfloat16 where every matrix is, else float16.
func (g *GPU) Load(w *model.Weights, context int) (*Model, error) {
	m := &Model{gpu: g, config: w.Config, products: productsOf(w), context: context}
	u := &uploader{model: m}
	m.embed, m.norm = u.matrices(w.Embed), u.vectors(w.Norm)
	if m.head = m.embed; !w.Config.Tied {
		m.head = u.matrices(w.Head)
	}
	for i := range w.Layers {
		l := &w.Layers[i]
		m.layers = append(m.layers, layer{
			attnNorm: u.vectors(l.AttnNorm), mlpNorm: u.vectors(l.MLPNorm),
			qkv: u.matrices(l.Q.W, l.K.W, l.V.W), out: u.matrices(l.Out.W),
			gateUp: u.matrices(l.Gate.W, l.Up.W), down: u.matrices(l.Down.W),
			qNorm: u.vectors(l.QNorm), kNorm: u.vectors(l.KNorm),
			qkvBias: u.vectors(l.Q.Bias, l.K.Bias, l.V.Bias), outBias: u.vectors(l.Out.Bias),
			gateUpBias: u.vectors(l.Gate.Bias, l.Up.Bias), downBias: u.vectors(l.Down.Bias),
		})
	}
	pairs := w.Config.Rotary.Dim / 2
	cos, sin := make([]float32, context*pairs), make([]float32, context*pairs)
	parallel(context, func(pos int) {
		w.Angles(cos[pos*pairs:(pos+1)*pairs], sin[pos*pairs:(pos+1)*pairs], pos)
	})
	m.cos, m.sin = u.vectors(cos), u.vectors(sin)
	if err := errors.Join(u.err, u.close()); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot load the model onto the GPU: %w", err), m.Close())
	}
	return m, nil
}

// Close gives the weights' memory back; nothing may be using it.
func (m *Model) Close() error {
	return m.gpu.dev.Do(func(c *cuda.Context) error {
		var errs []error
		for _, p := range m.owned {
			errs = append(errs, c.Free(p))
		}
		m.owned = nil
		return errors.Join(errs...)
	})
}

func productsOf(w *model.Weights) cuda.DType {
	all := []tensor.Tensor{w.Embed, w.Head}
	for _, l := range w.Layers {
		for _, p := range []model.Projection{l.Q, l.K, l.V, l.Out, l.Gate, l.Up, l.Down} {
			all = append(all, p.W)
		}
	}
	for _, t := range all {
		if t.DType != tensor.BF16 {
			return cuda.F16
		}
	}
	return cuda.BF16
}

// uploader copies weights to the device, through pinned memory, and keeps the
// first error.
type uploader struct {
	model  *Model
	staged []byte
	err    error
}

// stagedBytes is how much is converted and copied at a time.
const stagedBytes = 32 << 20

func (u *uploader) do(f func(c *cuda.Context) error) {
	if u.err == nil {
		u.err = u.model.gpu.dev.Do(f)
	}
}

func (u *uploader) close() error {
	return u.model.gpu.dev.Do(func(c *cuda.Context) error { return c.FreeHost(u.staged) })
}

func (u *uploader) alloc(n int) (p cuda.Ptr) {
	u.do(func(c *cuda.Context) (err error) {
		if p, err = c.Alloc(n); err == nil {
			u.model.owned = append(u.model.owned, p)
		}
		return err
	})
	return p
}

// vectors puts vectors one behind the other; 0 for none.
func (u *uploader) vectors(all ...[]float32) cuda.Ptr {
	var x []float32
	for _, v := range all {
		x = append(x, v...)
	}
	if len(x) == 0 {
		return 0
	}
	p := u.alloc(4 * len(x))
	u.do(func(c *cuda.Context) error { return c.Upload(p, cuda.Bytes(x)) })
	return p
}

// matrices puts matrices one behind the other.
func (u *uploader) matrices(all ...tensor.Tensor) cuda.Ptr {
	n := 0
	for _, t := range all {
		n += t.Elems()
	}
	p := u.alloc(2 * n)
	if u.staged == nil {
		u.do(func(c *cuda.Context) (err error) {
			u.staged, err = c.HostAlloc(stagedBytes)
			return err
		})
	}
	at := p
	for _, t := range all {
		width := t.Shape[len(t.Shape)-1]
		rows := t.Elems() / width
		for row := 0; row < rows && u.err == nil; {
			n := min(rows-row, max(1, len(u.staged)/(2*width)))
			if 2*width > len(u.staged) {
				u.err = fmt.Errorf("a row of %d weights is more than can be staged", width)
				break
			}
			u.convert(t, row, n, width)
			u.do(func(c *cuda.Context) error { return c.Upload(at, u.staged[:2*n*width]) })
			row, at = row+n, at+cuda.Ptr(2*n*width)
		}
	}
	return p
}

// convert puts n rows of t into the staging memory in the products' type.
func (u *uploader) convert(t tensor.Tensor, row, n, width int) {
	same := t.DType == tensor.BF16 && u.model.products == cuda.BF16 || t.DType == tensor.F16 && u.model.products == cuda.F16
	parallel(n, func(i int) {
		dst := u.staged[2*i*width : 2*(i+1)*width]
		if same {
			copy(dst, t.Row(row+i))
			return
		}
		x := make([]float32, width)
		blocks.Dequantize(x, t.DType, t.Row(row+i))
		for k, v := range x {
			if u.model.products == cuda.BF16 {
				binary.LittleEndian.PutUint16(dst[2*k:], tensor.F32ToBF16(v))
			} else {
				tensor.PutF16(dst, k, v)
			}
		}
	})
}

// parallel does f(0) … f(n-1) over all cores.
func parallel(n int, f func(i int)) {
	workers := min(n, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w * n / workers; i < (w+1)*n/workers; i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}
