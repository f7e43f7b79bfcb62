package cuda

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"testing"

	"github.com/terse-llm/terse/quant"
)

var (
	tableFlag  = flag.Bool("table", false, "time the kernels on the GPU and print a table")
	layersFlag = flag.Int("layers", 1, "in the decode table, pages lie as an engine's of so many layers do")
	onlyFlag   = flag.String("only", "", "formats to test or time, as a regular expression")
)

// needTable skips timings that are not asked for.
func needTable(t *testing.T) {
	t.Helper()
	if !*tableFlag || !*gpuFlag {
		t.Skip("timings are for a GPU: -gpu -table")
	}
}

// only reports whether a row is among those asked for, by its name's parts.
func only(t testing.TB, parts ...any) bool {
	t.Helper()
	match, err := regexp.MatchString(*onlyFlag, fmt.Sprint(parts...))
	ok(t, err)
	return match
}

// chosen is the formats that are asked for.
func chosen(t testing.TB, formats []attended) []attended {
	t.Helper()
	var some []attended
	for _, f := range formats {
		if only(t, f.label()) {
			some = append(some, f)
		}
	}
	return some
}

// label is a format in a table.
func (f attended) label() string {
	return fmt.Sprint(f.name, map[bool]string{true: " sym d", false: " asym d"}[f.calibrated], f.dim)
}

// row is one of a table: what fails in it ends it, and the rows after it are timed.
type row struct{ testing.TB }

// failed is a row's error.
type failed struct{ error }

func timeRow(t testing.TB, name string, f func(t testing.TB)) {
	t.Helper()
	defer func() {
		switch e := recover().(type) {
		case nil:
		case failed:
			fmt.Println() // of a line that has begun
			t.Errorf("%s: %v", name, e.error)
		default:
			panic(e)
		}
	}()
	f(row{t})
}

// heard keeps what is reported.
type heard struct {
	testing.TB
	said []string
}

func (h *heard) Errorf(format string, args ...any) {
	h.said = append(h.said, fmt.Sprintf(format, args...))
}

// A row that fails is reported by its name, and the table goes on.
func TestRowFails(t *testing.T) {
	h, closed := &heard{TB: t}, false
	for i := range 3 {
		timeRow(h, fmt.Sprint("row ", i), func(t testing.TB) {
			defer func() { closed = true }()
			if i == 1 {
				ok(t, errors.New("no room"))
			}
			ok(t, nil)
		})
	}
	if !closed || !slices.Equal(h.said, []string{"row 1: no room"}) {
		t.Error(h.said)
	}
}

// bench times launches on a GPU with nothing of theirs in its cache.
type bench struct {
	c        *Context
	from, to Event
	flush    Ptr
	reader   Function
}

const flushBytes = 512 << 20

func newBench(t testing.TB, c *Context, m Module) *bench {
	b := &bench{c: c}
	var err error
	b.reader, err = c.Function(m, "read_all", 0)
	ok(t, err)
	b.from, err = c.NewEvent(true)
	ok(t, err)
	b.to, err = c.NewEvent(true)
	ok(t, err)
	b.flush, err = c.Alloc(flushBytes)
	ok(t, err)
	ok(t, c.FillAsync(b.flush, 7, flushBytes, 0))
	return b
}

// read reads n bytes of device memory.
func (b *bench) read(p Ptr, n int) error {
	params := struct {
		data, out Ptr
		n         uint64
	}{p, p, uint64(n / 16)}
	return b.c.Launch(b.reader, Shape{Grid: [3]int{2 * b.c.info.SMs, 1, 1}, Block: 512}, 0, paramBytes(&params))
}

// median is the median time in µs of f's work, cold: between two events, behind
// a kernel that reads more memory than the cache holds (so that the host is ahead,
// and what f evicts from the cache need not be written back first).
func (b *bench) median(t testing.TB, runs int, f func() error) float64 {
	var all []float64
	for i := range runs + 3 {
		ok(t, b.read(b.flush, flushBytes))
		ok(t, b.c.Record(b.from, 0))
		ok(t, f())
		ok(t, b.c.Record(b.to, 0))
		us, err := b.c.Elapsed(b.from, b.to)
		ok(t, err)
		if i >= 3 {
			all = append(all, us)
		}
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// bandwidth is the speed of reading device memory in bytes per µs.
func (b *bench) bandwidth(t testing.TB) float64 {
	const n = 4 << 30
	p, err := b.c.Alloc(n)
	ok(t, err)
	ok(t, b.c.FillAsync(p, 7, n, 0))
	us := b.median(t, 7, func() error { return b.read(p, n) })
	ok(t, b.c.Free(p))
	return n / us
}

// randomCache makes a batch of caches of random pages on the device.
func randomCache(t testing.TB, c *Context, g *quant.Geometry, batch, n int) *onDevice {
	d := new(onDevice)
	pages := (n + g.Format.PageTokens - 1) / g.Format.PageTokens
	d.tables.Pages = pages
	fill := func(pageBytes, layers int, make1 func(b []byte, r *rand.Rand)) Ptr {
		const distinct = 64
		r := rand.New(rand.NewPCG(1, 2))
		b := make([]byte, min(distinct, batch*pages)*pageBytes)
		for at := 0; at < len(b); at += pageBytes {
			make1(b[at:at+pageBytes], r)
		}
		total := batch * pages * pageBytes * layers
		mem, err := c.Alloc(total)
		ok(t, err)
		d.owned = append(d.owned, mem)
		ok(t, c.Upload(mem, b))
		for at := len(b); at < total; {
			n := min(at, total-at)
			ok(t, c.CopyAsync(mem+Ptr(at), mem, n, 0))
			at += n
		}
		table := make([]uint64, batch*pages)
		for i := range table {
			table[i] = uint64(mem) + uint64(i*pageBytes*layers)
		}
		r.Shuffle(len(table), func(i, j int) { table[i], table[j] = table[j], table[i] })
		tab, err := c.Alloc(8 * len(table))
		ok(t, err)
		d.owned = append(d.owned, tab)
		ok(t, c.Upload(tab, bytesOf(table)))
		return tab
	}
	if g.Format.Coded() {
		d.tables.Coded = fill(g.CodedBytes(), *layersFlag, func(b []byte, r *rand.Rand) { randomCodes(g, b, r) })
	}
	layers := *layersFlag
	if g.Format.Coded() { // few exact ones are read
		layers = 1
	}
	d.tables.Exact = fill(g.ExactBytes(), layers, func(b []byte, r *rand.Rand) {
		for i := 0; i < len(b); i += 2 {
			b[i], b[i+1] = byte(r.Uint32()), byte(0x30+r.IntN(8)|r.IntN(2)<<7) // 0.125 … 1
		}
	})
	return d
}

// randomCodes fills a coded page with random codes and likely scales.
func randomCodes(g *quant.Geometry, b []byte, r *rand.Rand) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	for head := range g.KVHeads {
		page := g.CodedHead(b, head)
		for half := range 2 {
			l := &g.HQ[half]
			if l.Mask >= 0 {
				binary.LittleEndian.PutUint64(page[l.Mask:], someSet(r, l.LowRows))
			}
			for _, s := range l.Segments[:l.NSegments] {
				for t := range g.Format.PageTokens {
					page[s.Scale+2*t+1] = 0x34 + byte(r.IntN(4)) // 0.25 … 0.5
					if s.Zero >= 0 {
						page[s.Zero+2*t+1] = 0xb8 + byte(r.IntN(2)) // about -0.6
					}
				}
			}
		}
	}
}

// TestTable prints the decode table of docs/cuda.md.
func TestTable(t *testing.T) {
	needTable(t)
	on(t, func(c *Context, m Module) {
		b := newBench(t, c, m)
		rate := b.bandwidth(t)
		fmt.Printf("nothing takes %.1f µs, an empty kernel %.1f\n", b.median(t, 31, func() error { return nil }), b.median(t, 31, func() error { return b.read(b.flush, 0) }))
		fmt.Printf("%s, %d SMs, L2 %d MiB, reads %.2f TB/s\n", c.info.Name, c.info.SMs, c.info.L2>>20, rate/1e6)
		fmt.Printf("%-50s %-18s %9s %9s %9s %9s\n", "format", "shape", "µs", "GB/s", "floor µs", "×floor")
		for _, s := range []tableShape{
			{8, 4, 1, 2 << 10, 128}, {8, 4, 1, 4 << 10, 128}, {8, 4, 1, 16 << 10, 128}, {8, 4, 1, 32 << 10, 128}, {8, 4, 1, 128 << 10, 128}, {8, 4, 8, 32 << 10, 128}, {8, 4, 17, 32 << 10, 128}, {8, 4, 24, 32 << 10, 128}, {8, 4, 32, 32 << 10, 128}, {8, 4, 64, 32 << 10, 128}, {8, 4, 128, 32 << 10, 128}, {8, 4, 200, 32 << 10, 128},
			{8, 8, 1, 2 << 10, 128}, {8, 8, 1, 16 << 10, 128}, {8, 8, 1, 32 << 10, 128}, {8, 8, 1, 128 << 10, 128},
			{8, 4, 1, 32 << 10, 64}, {8, 4, 1, 128 << 10, 64}, {8, 4, 32, 32 << 10, 64},
		} {
			shared := fmt.Sprint("hq2,k2=shared:", s.dim/2)
			for _, f := range []struct {
				name       string
				calibrated bool
			}{
				{"hq2,sinks=0,recent=0", true}, {"hq2,sinks=0,recent=0", false}, {"hq2", true}, {"hq2,k2=lead:32,sinks=0,recent=0", true},
				{"hq3,sinks=0,recent=0", true}, {"hq3", true}, {"hq4,sinks=0,recent=0", true}, {"f16", true},
				{"hq2,k2=tokens:8,v2=tokens:8,sinks=0,recent=0", true}, {shared + ",sinks=0,recent=0", true}, {"hq2,important=6,sinks=0,recent=0", true},
				{shared + ",important=6,sinks=0,recent=0", true},
			} {
				if !only(t, f.name, " ", f.calibrated, " ", s) {
					continue
				}
				timeRow(t, fmt.Sprint(f.name, " ", s), func(t testing.TB) { b.row(t, m, f.name, f.calibrated, s, rate) })
			}
		}
	})
}

// tableShape is a decode step: query heads are group for each of heads.
type tableShape struct{ heads, group, batch, n, dim int }

func (s tableShape) String() string {
	return fmt.Sprintf("%d/%d B%d %dK d%d", s.heads*s.group, s.heads, s.batch, s.n>>10, s.dim)
}

func (b *bench) row(t testing.TB, m Module, name string, calibrated bool, s tableShape, rate float64) {
	heads, group, batch, n := s.heads, s.group, s.batch, s.n
	c, g := b.c, geometry(t, name, calibrated, heads, s.dim)
	bytes := 0
	w := newWork(g.Format, n, 0)
	bytes = batch * heads * (w.pages*g.HeadBytes + int(w.ExactHi)*2*2*g.HeadDim)
	if 4*bytes > int(c.info.Memory)/2 || bytes**layersFlag > int(c.info.Memory)*4/5 {
		return
	}
	d, err := c.NewDecoder(m, g, group)
	ok(t, err)
	lengths := slices.Repeat([]int{n}, batch)
	step, err := c.Prepare(d, d.Plan(c.info, lengths))
	ok(t, err)
	defer func() { ok(t, c.CloseStep(step)) }()
	mem := randomCache(t, c, g, batch, n)
	defer mem.free(t, c)
	l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 3))}
	defer l.close()
	qMem, q := l.normal(batch * heads * group * g.HeadDim)
	outMem := l.bytes(poison(4 * len(q)))
	us := b.median(t, 61, func() error { return c.Attend(step, mem.tables, 0, qMem, outMem, 0.088, 0) })
	floor := float64(bytes) / rate
	symmetry := "asym"
	if g.Format.Symmetric || !g.Format.Coded() {
		symmetry = "sym"
	}
	fmt.Printf("%-50s %-18s %9.1f %9.0f %9.1f %9.2f\n", name+" "+symmetry, s, us, float64(bytes)/us/1e3, floor, us/floor)
}

// TestTablePrefill prints the prompt's table: attention of a whole prompt, and
// what coding it takes.
func TestTablePrefill(t *testing.T) {
	needTable(t)
	const heads, group = 8, 4
	on(t, func(c *Context, m Module) {
		b := newBench(t, c, m)
		fmt.Printf("%-14s %6s %12s %10s %14s\n", "prompt", "tokens", "attention µs", "TFLOP/s", "append+code µs")
		for _, n := range []int{16 << 10, 32 << 10} {
			for _, f := range []attended{{"hq2", true, 128}, {"hq2", false, 128}, {"hq3", true, 128}, {"hq4", true, 128}, {"hq2,k2=lead:32", true, 128}, {"hq2,k2=shared:64", true, 128}, {"hq2", true, 64}, {"hq2", false, 64}, {"hq3", true, 64}, {"hq4", true, 64}, {"hq2,k2=lead:16", true, 64}, {"f16", true, 128}, {"f16", true, 64}} {
				if !only(t, f.name, " ", f.calibrated, " d", f.dim) {
					continue
				}
				timeRow(t, f.label(), func(t testing.TB) { b.promptRow(t, m, f, heads, group, n) })
			}
		}
	})
}

func (b *bench) promptRow(t testing.TB, m Module, f attended, heads, group, n int) {
	c, g := b.c, f.geometry(t, heads)
	p, err := c.NewPrefiller(m, g, group)
	ok(t, err)
	tf, err := quant.NewTransform(g, nil)
	ok(t, err)
	e, err := c.NewEncoder(m, g, tf)
	ok(t, err)
	defer func() { ok(t, c.CloseEncoder(e)) }()
	mem := randomCache(t, c, g, 1, n)
	defer mem.free(t, c)
	l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 3))}
	defer l.close()
	q, _ := l.normal(n * heads * group * g.HeadDim)
	out := l.bytes(make([]byte, 4*n*heads*group*g.HeadDim))
	code := b.median(t, 7, func() error { return c.Append(e, 0, 0, n, q, out, mem.tables.Exact, mem.tables.Coded, 0) })
	us := b.median(t, 5, func() error {
		return c.Prefill(p, 0, 0, n, mem.tables.Coded, mem.tables.Exact, q, out, 0.088, 0)
	})
	fmt.Printf("%-14s %6d %12.0f %10.0f %14.0f\n", f.label(), n, us, 2*float64(n)*float64(n)*float64(g.HeadDim*heads*group)/us/1e6, code)
}

// TestTableSelect prints what choosing a prompt's important tokens takes in a layer:
// their weights, by 64 rows, and the choice with its planes.
func TestTableSelect(t *testing.T) {
	needTable(t)
	const heads, group, rows = 8, 4, 64
	on(t, func(c *Context, m Module) {
		b := newBench(t, c, m)
		fmt.Printf("%6s %10s %10s\n", "tokens", "weigh µs", "choose µs")
		for _, n := range []int{4 << 10, 32 << 10, 128 << 10} {
			g := geometry(t, "hq2,k2=shared:64,important=6", true, heads, 128)
			mem := randomCache(t, c, g, 1, n)
			l := &lab{t: t, c: c, r: rand.New(rand.NewPCG(1, 3))}
			sel, err := c.NewSelector(m, g, group, n)
			ok(t, err)
			p, err := c.NewPrefiller(m, g, group)
			ok(t, err)
			q, _ := l.normal(rows * heads * group * g.HeadDim)
			out, states := l.bytes(make([]byte, 4*rows*heads*group*g.HeadDim)), l.bytes(make([]byte, 8*rows*heads*group))
			ok(t, c.Prefill(p.Exact(0, states), 0, n-rows, rows, mem.tables.Coded, mem.tables.Exact, q, out, 0.088, 0))
			w := Watched{Position: n - rows, Rows: rows, Q: q, States: states, Exact: mem.tables.Exact, Coded: mem.tables.Coded, Prompt: n}
			w.Lo, w.Hi = g.Format.Selectable(n)
			weigh := b.median(t, 15, func() error { return c.Weigh(sel, w, 0.088, 0) })
			choose := b.median(t, 15, func() error { return c.Choose(sel, w, 0) })
			fmt.Printf("%6d %10.1f %10.1f\n", n, weigh, choose)
			ok(t, c.CloseSelector(sel))
			l.close()
			mem.free(t, c)
		}
	})
}
