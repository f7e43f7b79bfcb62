package cuda

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/terse-llm/terse/quant"
)

// chain is a decode step of some layers of Llama-3.1-8B's shape at 1K, as a graph of
// launches of which some can be left out.
type chain struct {
	*lab
	few     *Few
	turner  *Turner
	encoder *Encoder
	step    *Step
	tables  Tables
	weights [chainLayers][4]Ptr // q k v, out, gates and ups, down
	x, qkv  Ptr
	q, k, v Ptr
	gated   Ptr
	ones    Ptr
	norms   [chainLayers][2]Ptr // the weights of a layer's norms
	at      Ptr
}

const (
	chainLayers              = 6
	chainHidden, chainInner  = 4096, 14336
	chainHeads, chainKVHeads = 32, 8
	chainDepth               = 1024
)

func newChain(l *lab, m Module) *chain {
	t, c, f := l.t, l.c, &chain{lab: l}
	format, err := quant.ParseFormat("hq2", true)
	ok(t, err)
	g, err := quant.NewGeometry(format, chainLayers, chainKVHeads, 128)
	ok(t, err)
	tf, err := quant.NewTransform(g, nil)
	ok(t, err)
	f.few, err = c.NewFew(m, BF16, 128)
	ok(t, err)
	f.turner, err = c.NewTurner(m, g, tf, chainHeads, BF16)
	ok(t, err)
	f.encoder, err = c.NewEncoder(m, g, tf)
	ok(t, err)
	d, err := c.NewDecoder(m, g, chainHeads/chainKVHeads)
	ok(t, err)
	f.step, err = c.Prepare(d, d.Plan(c.info, []int{chainDepth}))
	ok(t, err)
	f.tables = randomCache(t, c, g, 1, chainDepth).tables
	some, _ := l.sixteen(1<<20, BF16, 0.02)
	for i := range f.weights {
		for k, n := range []int{6144 * chainHidden, chainHidden * chainHidden, 2 * chainInner * chainHidden, chainInner * chainHidden} {
			f.weights[i][k], err = c.Alloc(2 * n)
			ok(t, err)
			for at := 0; at < 2*n; at += 2 << 20 {
				ok(t, c.CopyAsync(f.weights[i][k]+Ptr(at), some, min(2<<20, 2*n-at), 0))
			}
		}
	}
	f.x, _ = l.normal(chainHidden)
	f.ones, _ = l.normal(128 * chainDepth)
	for i := range f.norms {
		f.norms[i][0], _ = l.normal(chainHidden)
		f.norms[i][1], _ = l.normal(chainHidden)
	}
	f.qkv, f.q, f.k, f.v = l.bytes(make([]byte, 4*6144)), l.bytes(make([]byte, 4*chainHidden)), l.bytes(make([]byte, 4096)), l.bytes(make([]byte, 4096))
	f.gated = l.bytes(make([]byte, 2*chainInner))
	f.at = l.bytes(bytesOf([]int32{chainDepth - 2}))
	return f
}

// layer puts layer i into the stream, without what skip names.
func (f *chain) layer(i int, skip string, s Stream) error {
	var errs []error
	c, w := f.c, f.weights[i]
	do := func(name string, g func() error) {
		if !strings.Contains(skip, name) {
			errs = append(errs, g())
		}
	}
	do("qkv", func() error {
		return c.FewNormed(f.few, Product{W: w[0], Rows: 1, In: chainHidden, Out: 6144, Y: f.qkv}, f.x, f.norms[i][0], 0, 1e-5, s)
	})
	do("enter", func() error {
		turn := Turn{X: f.qkv, Eps: 1e-5, Cos: f.ones, Sin: f.ones, Positions: f.at, Pairs: 64, Q: f.q, K: f.k, V: f.v}
		return c.Enter(f.turner, f.encoder, i, 1, turn, f.tables, s)
	})
	do("attend", func() error { return c.Attend(f.step, f.tables, i, f.q, f.q, 0.088, s) })
	do("out", func() error {
		return c.FewLeft(f.few, Product{W: w[1], Rows: 1, In: chainHidden, Out: chainHidden, Y: f.x, Add: true}, f.turner, 0, f.q, s)
	})
	do("up", func() error {
		return c.FewNormed(f.few, Product{W: w[2], Rows: 1, In: chainHidden, Out: chainInner, Gated: f.gated}, f.x, f.norms[i][1], 0, 1e-5, s)
	})
	do("down", func() error {
		return c.Few(f.few, Product{W: w[3], Rows: 1, In: chainInner, Out: chainHidden, Y: f.x, Add: true}, f.gated, s)
	})
	return errors.Join(errs...)
}

// time is the median µs of a layer.
func (f *chain) time(b *bench, skip string) float64 {
	c := f.c
	s, err := c.NewStream()
	ok(f.t, err)
	const rounds = 4
	g, err := c.Capture(s, func() error {
		for i := range rounds * chainLayers {
			if err := f.layer(i%chainLayers, skip, s); err != nil {
				return err
			}
		}
		return nil
	})
	ok(f.t, err)
	var all []float64
	for range 9 {
		ok(f.t, c.Record(b.from, s))
		ok(f.t, c.Replay(g, s))
		ok(f.t, c.Record(b.to, s))
		us, err := c.Elapsed(b.from, b.to)
		ok(f.t, err)
		all = append(all, us/(rounds*chainLayers))
	}
	ok(f.t, c.CloseGraph(g))
	ok(f.t, c.CloseStream(s))
	slices.Sort(all)
	return all[len(all)/2]
}

// TestChainTable prints what a layer's launches take in the company of the others:
// of all, and without some. (Kernels may overlap: times do not add up.)
func TestChainTable(t *testing.T) {
	needTable(t)
	on(t, func(c *Context, m Module) {
		f := newChain(&lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 7))}, m)
		b := newBench(t, c, m)
		driver := c.version
		for _, skip := range []string{"", "attend", "enter", "enter attend", "qkv enter attend out up", "qkv enter attend out down", "enter attend up down", "qkv out up down", "qkv enter out up down"} {
			us := f.time(b, skip)
			c.version = minEarly - 1
			plain := f.time(b, skip)
			c.version = driver
			fmt.Printf("a layer without %-36q %7.1f µs; launched one after the other %7.1f\n", skip, us, plain)
		}
	})
}
