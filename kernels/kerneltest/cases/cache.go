package cases

import (
	"math"
	"math/rand/v2"

	"github.com/terse-llm/terse/internal/huge"
	"github.com/terse-llm/terse/kernels"
	"github.com/terse-llm/terse/quant"
)

// Format is a KV format by name, with or without a calibration (with one, hq
// formats are symmetric).
type Format struct {
	Name       string
	Calibrated bool
}

func (f Format) String() string {
	if f.Calibrated {
		return f.Name
	}
	return f.Name + "/uncalibrated"
}

// Formats are the formats that attention and coding are checked in: every
// family, and every option that changes a page's layout or its arithmetic.
func Formats() []Format {
	return []Format{
		{"f16", true}, {"hq2", true}, {"hq2", false}, {"hq3", true}, {"hq4", true}, {"hq4", false},
		{"hq2,k2=lead:16,v2=lead:32", true}, {"hq2,k2=lead:32", false}, {"hq2,k2=shared:16", true}, {"hq2,k2=tokens:8,v2=tokens:16", true},
		{"hq2,k2=tokens:16,v2=tokens:8", false}, {"hq3,sinks=0,recent=0", true},
		{"hq2,important=10", true}, {"hq3,important=20", false},
		{"hack", false}, {"hack,round=nearest", false}, {"hack,bits=8,partition=128,round=nearest", false},
		{"hack,bits=4,partition=32,se=off", false}, {"hack,rqe=off,round=nearest", false},
		{"hack:v2", false}, {"hack:v2,partition=32,bits=4", false}, {"hack:v2,partition=128,se=off", false},
		{"hack:v2,rqe=off,round=stochastic", false},
		{"int8", false}, {"int4", false}, {"kivi", false}, {"kivi,bits=4,group=64,residual=64", false},
		{"cachegen", false}, {"cachegen,prefill=codes", false}, {"cachegen,delta=10", false},
		{"kvquant", true}, {"kvquant,bits=3", true}, {"kvquant,bits=4", true},
	}
}

// Geometry lays the format out, kvquant with the codebooks of Calibration.
func (f Format) Geometry(layers, heads, d int) (*quant.Geometry, error) {
	format, err := quant.ParseFormat(f.Name, f.Calibrated)
	if err != nil {
		return nil, err
	}
	g, err := quant.NewGeometry(format, layers, heads, d)
	if err != nil || format.Family != quant.FamilyKVQuant {
		return g, err
	}
	tf, err := quant.NewTransform(g, Calibration(layers, heads, d))
	if err != nil {
		return nil, err
	}
	return tf.Geometry(), nil
}

// Calibration is one that is made up for kvquant: means of nothing, and levels that are
// uniform but for lying closer in the middle, over about the range of the caches here,
// with the channels turned as models turn them (interleaved where d is an odd number
// of times 16).
func Calibration(layers, heads, d int) *quant.Calibration {
	n := layers * heads * d
	return &quant.Calibration{Layers: layers, KVHeads: heads, HeadDim: d,
		KMean: make([]float32, n), VMean: make([]float32, n), NUQ: codebooks(layers, heads, d)}
}

func codebooks(layers, heads, d int) *quant.NUQ {
	q := quant.NewNUQ(layers, heads, d, d/2-d%32/8) // of 80 channels 76 turn
	q.Interleaved = d/16%2 == 1
	for i := range q.Inverse {
		q.Inverse[i] = float32(math.Pow(1e4, -float64(i)/float64(len(q.Inverse))))
	}
	for i := range q.Low {
		q.Low[i], q.High[i] = -3-float32(i%5)/4, 2.5+float32(i%7)/4
	}
	for layer := range layers {
		for half := range 2 {
			for bits := 2; bits <= 4; bits++ {
				book, levels := quant.NUQBook(q.Books, layer, half, bits), quant.NUQBook(q.Levels, layer, half, bits)
				for i := range book {
					x := (2*float32(i)+1)/float32(len(book)) - 1
					book[i] = x * (0.7 + 0.3*x*x)
					levels[i] = book[i]*1.05 + 0.01
				}
			}
		}
	}
	return q
}

// layersOf is the layers of the model that a cache is of. Of nine, where layers are not laid
// out alike, the first two, the third and the others differ.
const layersOf = 9

// Cache is one layer of a sequence of made-up tokens, in both forms.
type Cache struct {
	Geometry     *quant.Geometry // of one layer
	Tokens       int
	Exact, Coded [][]byte // by page
}

// important is a set of up to 8 tokens of a page, for the formats that want one.
func important(int, int) uint64 { return 0x0102_0408_8000_0003 }

// NewCache fills n tokens of Gaussian K and V of heads KV heads; some channels of
// K are larger and off centre, as models have them. Tokens come in chunks of any
// size.
func NewCache(f Format, heads, d, n int, seed uint64) (*Cache, error) {
	all, err := f.Geometry(layersOf, heads, d)
	if err != nil {
		return nil, err
	}
	g, format := all.At(int(seed%layersOf)), all.Format
	c := &Cache{Geometry: g, Tokens: n}
	r := rand.New(rand.NewPCG(seed, 1))
	k, v := make([]float32, heads*d), make([]float32, heads*d)
	last := 0 // tokens coded so far
	for tok := range n {
		page, at := tok/format.PageTokens, tok%format.PageTokens
		if at == 0 {
			c.Exact = append(c.Exact, make([]byte, g.ExactBytes()))
			c.Coded = append(c.Coded, make([]byte, g.CodedBytes()))
		}
		for i := range k {
			ch := i % d
			gain := 1 + float64(ch%7)/4
			k[i] = float32(gain * (r.NormFloat64() + 0.3*float64(ch%3-1)))
			v[i] = float32(r.NormFloat64())
		}
		g.PutExact(c.Exact[page], at, k, v)
		if r.IntN(20) > 0 && at+1 < format.PageTokens && tok+1 < n {
			continue
		}
		lo := max(last, page*format.PageTokens)
		last = tok + 1
		g.Encode(quant.EncodeArgs{
			Exact: c.Exact[page], Coded: c.Coded[page], First: page * format.PageTokens, Lo: lo % format.PageTokens, Hi: at + 1,
			Important: important,
		})
	}
	return c, nil
}

// Repeat is a cache of n tokens that repeats c's whole pages in memory of its
// own: as costly to read as a real one of that length, and quick to make. Pages
// exist only in the forms that a query at its end reads, in huge pages, as caches
// of many layers keep them.
func (c *Cache) Repeat(n int) *Cache {
	f := c.Geometry.Format
	whole := c.Tokens / f.PageTokens
	out := &Cache{Geometry: c.Geometry, Tokens: n}
	pages := (n + f.PageTokens - 1) / f.PageTokens
	out.Exact, out.Coded = make([][]byte, pages), make([][]byte, pages)
	tiles := c.tiles(n, func(page int) (exact, coded []byte) { return nil, nil })
	form := func(to, from [][]byte, reads func(t *kernels.Tile) bool) {
		var read []int
		for i := range tiles {
			if page := tiles[i].First / f.PageTokens; reads(&tiles[i]) && (len(read) == 0 || read[len(read)-1] != page) {
				read = append(read, page)
			}
		}
		for i, b := range huge.Split(len(read), len(from[0])) {
			copy(b, from[read[i]%whole])
			to[read[i]] = b
		}
	}
	form(out.Exact, c.Exact, func(t *kernels.Tile) bool { return !t.KCoded || !t.VCoded })
	form(out.Coded, c.Coded, func(t *kernels.Tile) bool { return t.KCoded || t.VCoded })
	return out
}

// Tiles says how a query with n tokens reads them; a tile has only the forms that
// are read.
func (c *Cache) Tiles(n int) []kernels.Tile {
	return c.tiles(n, func(page int) (exact, coded []byte) { return c.Exact[page], c.Coded[page] })
}

func (c *Cache) tiles(n int, bytes func(page int) (exact, coded []byte)) []kernels.Tile {
	f := c.Geometry.Format
	fromK, fromV := f.ExactFrom(n)
	var tiles []kernels.Tile
	for lo := 0; lo < n; {
		page := lo / f.PageTokens
		first := page * f.PageTokens
		hi := min(first+f.PageTokens, n)
		for _, edge := range []int{f.Sinks, fromK, fromV} {
			if edge > lo {
				hi = min(hi, edge)
			}
		}
		coded := f.Coded() && lo >= f.Sinks
		t := kernels.Tile{First: first, Lo: lo - first, Hi: hi - first,
			KCoded: coded && lo < fromK, VCoded: coded && lo < fromV}
		exact, codes := bytes(page)
		if !t.KCoded || !t.VCoded {
			t.Exact = exact
		}
		if t.KCoded || t.VCoded {
			t.Coded = codes
		}
		tiles = append(tiles, t)
		lo = hi
	}
	return tiles
}

// Jobs are the attention of the last rows of the sequence, one job for each KV
// head of group query heads, all reading as the last row does. Queries are
// Gaussian.
func (c *Cache) Jobs(group, rows int, seed uint64) []kernels.AttnJob {
	r := rand.New(rand.NewPCG(seed, 2))
	d, tiles := c.Geometry.HeadDim, c.Tiles(c.Tokens)
	limits := make([]int, rows)
	for i := range limits {
		limits[i] = c.Tokens - rows + i + 1
	}
	jobs := make([]kernels.AttnJob, c.Geometry.KVHeads)
	for h := range jobs {
		jobs[h] = kernels.AttnJob{
			Geometry: c.Geometry, Head: h, Group: group, Scale: float32(1 / math.Sqrt(float64(d))), Tiles: tiles,
			Q: Gaussian(r, rows*group*d), Out: make([]float32, rows*group*d), Limit: limits,
		}
	}
	return jobs
}

// Gaussian is n values of mean 0 and deviation 1.
func Gaussian(r *rand.Rand, n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

// bytes is what one KV head of the tiles must be read of: the codes and scales
// of coded halves, the rows of exact ones.
func (c *Cache) bytes() int {
	g := c.Geometry
	exact := g.ExactBytes() / g.KVHeads / 2 / g.Format.PageTokens // of one token and half
	coded := 0                                                    // of one token, both halves
	if g.Format.Coded() {
		coded = g.CodedBytes() / g.KVHeads / g.Format.PageTokens
	}
	n := 0
	for _, t := range c.tiles(c.Tokens, func(int) (exact, coded []byte) { return nil, nil }) {
		tokens := t.Hi - t.Lo
		for _, isCoded := range []bool{t.KCoded, t.VCoded} {
			if isCoded {
				n += tokens * coded / 2
			} else {
				n += tokens * exact
			}
		}
	}
	return n
}
