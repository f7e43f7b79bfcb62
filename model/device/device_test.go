package device

import (
	"encoding/binary"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kernels/cpu"
	"github.com/terse-llm/terse/kernels/cuda"
	"github.com/terse-llm/terse/kernels/cuda/cudatest"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/modeltest"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/weights"
)

var gpuFlag = flag.Bool("gpu", false, "run on the machine's GPU instead of the emulated one")

// openGPU opens the n-th GPU, or the n-th emulated one; the test is skipped without
// either.
func openGPU(t testing.TB, n int) *GPU {
	t.Helper()
	if !cuda.Built {
		t.Skip("this build has no CUDA")
	}
	o := Options{Ordinal: n}
	if !*gpuFlag {
		lib := cudatest.Emulator(t)
		o.Driver, o.Libraries = []string{lib}, []string{filepath.Dir(lib)}
	}
	g, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, g) })
	return g
}

func closed(t testing.TB, c interface{ Close() error }) {
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// tiny is a model on both sides.
type tiny struct {
	t      *testing.T
	host   *model.Model
	device *Model
}

func newTiny(t *testing.T, seed uint64) *tiny { return newTinyOn(t, seed, 0) }

// newTinyOn is newTiny on the n-th GPU.
func newTinyOn(t *testing.T, seed uint64, n int) *tiny {
	t.Helper()
	g := openGPU(t, n)
	dir := t.TempDir()
	modeltest.WriteTiny(t, dir, seed)
	x := &tiny{t: t}
	var w *model.Weights
	x.host, w = bindTiny(t, dir)
	var err error
	if x.device, err = g.Load(w, 1024); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, x.device) })
	return x
}

// bindTiny opens a model on the processor.
func bindTiny(t *testing.T, dir string) (*model.Model, *model.Weights) {
	t.Helper()
	src, err := weights.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	c, err := model.ConfigOf(src)
	if err != nil {
		t.Fatal(err)
	}
	w, err := model.Find(c, src)
	if err != nil {
		t.Fatal(err)
	}
	ops := cpu.Best(1)
	t.Cleanup(ops.Close)
	m, err := model.Bind(c, src, ops)
	if err != nil {
		t.Fatal(err)
	}
	return m, w
}

func (x *tiny) geometry(kv string) *quant.Geometry {
	x.t.Helper()
	f, err := quant.ParseFormat(kv, calibration(kv) != nil)
	if err != nil {
		x.t.Fatal(err)
	}
	g, err := x.host.Config.CalibratedGeometry(f, calibration(kv))
	if err != nil {
		x.t.Fatal(err)
	}
	return g
}

// calibration is one with a basis for formats that want it, and with other layers for
// each that wants a plan; nil for others.
func calibration(kv string) *quant.Calibration {
	switch {
	case !strings.HasPrefix(kv, "hq2+") && !strings.HasPrefix(kv, "hq2b"):
		return nil
	case strings.Contains(kv, "important"):
		return modeltest.Calibration([...]uint16{modeltest.HeadDim, 0})
	}
	return modeltest.Calibration([...]uint16{16, 48})
}

func (x *tiny) onDevice(g *quant.Geometry, o RunnerOptions) *Runner {
	x.t.Helper()
	r, err := x.device.NewRunner(g, calibration(g.Format.Name), o)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { closed(x.t, r) })
	return r
}

func (x *tiny) onHost(g *quant.Geometry) model.Runner {
	x.t.Helper()
	r, err := model.NewRunner(x.host, g, calibration(g.Format.Name))
	if err != nil {
		x.t.Fatal(err)
	}
	return r
}

// bench is a runner with pages and the sequences on it.
type bench struct {
	t      *testing.T
	r      model.Runner
	cache  *kvcache.Cache
	pages  model.Pages
	batch  model.Batch
	staged bool
}

type text struct {
	table  kvcache.Table
	view   quant.View
	prompt int
	ids    []terse.Token
	n      int // written
}

func newBench(t *testing.T, r model.Runner, budget int64) *bench {
	t.Helper()
	b := &bench{t: t, r: r}
	var err error
	if b.cache, err = kvcache.New(r.Geometry(), budget); err != nil {
		t.Fatal(err)
	}
	if b.pages, err = r.Pages(b.cache); err != nil {
		t.Fatal(err)
	}
	return b
}

// add puts n more tokens of s into the batch.
func (b *bench) add(s *text, n int) {
	b.t.Helper()
	if !b.cache.Grow(&s.table, s.n+n, s.prompt) {
		b.t.Fatal("the cache is full")
	}
	s.view.Staged = s.n
	if b.staged {
		b.pages.Stage(&s.table, s.prompt, &s.view)
	} else {
		b.pages.View(&s.table, s.prompt, &s.view)
	}
	b.batch.Append(s.ids[s.n:s.n+n], &s.view, s.n)
	s.n += n
	b.batch.WantLast()
}

// step runs the batch and trims; the logits are copied.
func (b *bench) step(all ...*text) []float32 {
	b.t.Helper()
	res, err := b.r.Step(&b.batch)
	if err != nil {
		b.t.Fatal(err)
	}
	logits := append([]float32(nil), res.Logits...)
	vocab := b.r.Config().VocabSize
	for i, best := range res.Tokens {
		if row := logits[i*vocab : (i+1)*vocab]; row[best] != row[argmax(row)] {
			b.t.Errorf("row %d: token %d is said to be the most likely, %d is", i, best, argmax(row))
		}
	}
	b.batch.Reset()
	for _, s := range all {
		b.cache.Trim(&s.table, s.n, s.prompt)
		b.cache.Commit(&s.table, s.ids, s.n)
	}
	return logits
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

func random(seed uint64, n int) []terse.Token {
	r := rand.New(rand.NewPCG(seed, 3))
	ids := make([]terse.Token, n)
	for i := range ids {
		ids[i] = terse.Token(2 + r.IntN(modeltest.Vocab-2))
	}
	return ids
}

// far is the relative distance of two vectors.
func far(got, want []float32) float64 {
	var d, n float64
	for i := range want {
		e := float64(got[i]) - float64(want[i])
		d, n = d+e*e, n+float64(want[i])*float64(want[i])
	}
	return math.Sqrt(d / n)
}

// bound is how far logits of the two sides may lie apart: products in float16 on
// the one, and queries and weights of eight bits on both for codes.
func bound(kv string) float64 {
	if kv == "f16" {
		return 0.01
	}
	return 0.06
}

// apart runs prompts in chunks, single rows alone and beside them on two benches, and
// says of each step how far its logits lie apart.
func apart(d, h *bench, said func(what string, far float64)) {
	run := func(what string, f func(b *bench, s []*text) []*text, s [2][]*text) {
		var logits [2][]float32
		for i, b := range []*bench{d, h} {
			logits[i] = b.step(f(b, s[i])...)
		}
		said(what, far(logits[0], logits[1]))
	}
	var s [2][]*text
	for i := range s {
		for k, n := range []int{330, 150, 90} {
			s[i] = append(s[i], &text{ids: random(uint64(k), n+60), prompt: n})
		}
	}
	run("a chunk", func(b *bench, s []*text) []*text { b.add(s[0], 170); return s[:1] }, s)
	run("two chunks", func(b *bench, s []*text) []*text { b.add(s[1], 30); b.add(s[0], 160); return s[:2] }, s)
	for range 3 {
		run("beside a row", func(b *bench, s []*text) []*text { b.add(s[1], 30); b.add(s[0], 1); b.add(s[2], 20); return s }, s)
	}
	for range 4 {
		run("rows", func(b *bench, s []*text) []*text { b.add(s[0], 1); b.add(s[1], 1); b.add(s[2], 1); return s }, s)
		run("a row", func(b *bench, s []*text) []*text { b.add(s[0], 1); return s[:1] }, s)
	}
}

// Prompts in chunks, single rows alone and beside them, graphs and no graphs: the
// logits are those of the processor. The hack layouts are held to the bound with 8
// bits; hack:v2 with its 2 bits, too, to what roundings do to it.
func TestStep(t *testing.T) {
	x := newTiny(t, 1)
	formats := []string{"f16", "hq2", "hq3", "hq4", "hq2+", "hq2b", "hq2,important=10", "hq2b,important=10", "hack,bits=8,round=nearest", "hack:v2,bits=8", "hack:v2"}
	if testing.Short() {
		formats = formats[2:3]
	}
	for _, kv := range formats {
		g, most := x.geometry(kv), bound(kv)
		if kv == "hack:v2" {
			most = x.sensitivity(kv, apart)
		}
		d := newBench(t, x.onDevice(g, RunnerOptions{Rows: 200, Sequences: 4, Context: 512, NoGraphs: kv == "hq3"}), 8<<20)
		apart(d, newBench(t, x.onHost(g), 8<<20), func(what string, far float64) {
			if !(far < most) {
				t.Errorf("%s, %s: logits are %.2g apart, of %.2g", kv, what, far, most)
			}
		})
	}
}

// sensitivity is how far the processor's own logits move where weights do by what
// rounding them to float16 may, half a unit in the last place: codes of 2 bits jump
// by a third of their range where a value crosses the middle between two. It is
// twice the most that some such moves do to what is run.
func (x *tiny) sensitivity(kv string, run func(d, h *bench, said func(what string, far float64))) float64 {
	x.t.Helper()
	worst := 0.0
	for seed := range uint64(4) {
		dir := x.t.TempDir()
		modeltest.WriteTiny(x.t, dir, 1)
		moveWeights(x.t, filepath.Join(dir, "model.safetensors"), 1.0/4096, seed)
		moved := &tiny{t: x.t}
		moved.host, _ = bindTiny(x.t, dir)
		g := x.geometry(kv)
		run(newBench(x.t, moved.onHost(g), 8<<20), newBench(x.t, x.onHost(g), 8<<20), func(_ string, far float64) { worst = max(worst, far) })
	}
	return 2 * worst
}

// moveWeights moves each float32 of a safetensors file by up to a share of it.
func moveWeights(t *testing.T, path string, share float64, seed uint64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 12))
	for i := 8 + int(binary.LittleEndian.Uint64(data)); i+4 <= len(data); i += 4 {
		w := math.Float32frombits(binary.LittleEndian.Uint32(data[i:]))
		w *= float32(1 + share*(2*r.Float64()-1))
		binary.LittleEndian.PutUint32(data[i:], math.Float32bits(w))
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What GPUs do not serve is refused by name, with what they do.
func TestRefused(t *testing.T) {
	x := newTiny(t, 1)
	for _, kv := range []string{"int4", "int8", "kivi", "f32", "hq2,k2=lead:48"} {
		g := x.geometry(kv)
		_, err := x.device.NewRunner(g, nil, RunnerOptions{Rows: 8, Sequences: 1, Context: 64})
		if err == nil || !strings.Contains(err.Error(), g.Format.Name) || !strings.Contains(err.Error(), "GPU") {
			t.Errorf("%s: %v", kv, err)
		}
	}
}

// What does not fit is refused before anything is loaded, with what to do.
func TestFits(t *testing.T) {
	x := newTiny(t, 1)
	g, c := x.geometry("hq3"), &x.host.Config
	if err := x.device.gpu.Fits(c, g, nil, 1<<20, 100); err != nil {
		t.Error(err)
	}
	err := x.device.gpu.Fits(c, g, nil, 1<<40, 100)
	if !errors.Is(err, cuda.ErrNoMemory) || !strings.Contains(err.Error(), "--kv-memory") {
		t.Errorf("a TiB of KV: %v", err)
	}
	if err := x.device.gpu.Fits(c, x.geometry("int4"), nil, 1<<20, 100); err == nil || !strings.Contains(err.Error(), "int4") {
		t.Errorf("a format without kernels: %v", err)
	}
	if err := x.device.gpu.Fits(c, g, nil, 1<<20, 1<<30); !errors.Is(err, cuda.ErrNoMemory) || !strings.Contains(err.Error(), "--chunk") {
		t.Errorf("steps of a milliard rows: %v", err)
	}
	free, err := x.device.gpu.FreeMemory()
	if room := KVRoom(c, free, 100); err != nil || room <= 0 || 2*room > free {
		t.Errorf("%d of %d bytes for a KV cache, %v", room, free, err)
	}
	if _, err := Open(Options{Ordinal: 99, Driver: x.device.gpu.options.Driver, Libraries: x.device.gpu.options.Libraries}); !errors.Is(err, cuda.ErrNoDriver) || !strings.Contains(err.Error(), "GPU 99") {
		t.Errorf("GPU 99: %v", err)
	}
}
