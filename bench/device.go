package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/quant"
	"github.com/terse-llm/terse/tensor"
)

// DeviceOptions say what to time of a model on a GPU: prefill of Prompts, and
// decoding at every depth.
type DeviceOptions struct {
	GPU         *device.GPU
	Model       *device.Model
	Config      *model.Config
	Calibration *quant.Calibration // nil for none
	MadeUp      *quant.Calibration // without one, for formats that want it: nil to refuse them
	Formats     []string           // of the KV cache
	Depths      []int              // tokens in the cache of each sequence, rounded to whole pages
	Batches     []int              // sequences decoded together; 0: as many as there is memory for
	Steps       int                // tokens decoded of each
	Prompts     []int              // lengths to prefill
	Chunk       int                // tokens of one step of a prefill
	Rounds      int                // times that each is
	NoGraphs    bool
	Log         func(string) // may be nil
}

// DeviceRow is one decoding speed on a GPU.
type DeviceRow struct {
	Format string        `json:"kv"`
	Depth  int           `json:"tokens"` // in the cache of each sequence
	Batch  int           `json:"batch"`
	Rate   float64       `json:"tokens_per_s"` // of all sequences together
	Median time.Duration `json:"median_ns"`    // of a step
	Low    time.Duration `json:"quartile1_ns"`
	High   time.Duration `json:"quartile3_ns"`
	Floor  time.Duration `json:"floor_ns"` // reading the weights once and the cache once
	Weight time.Duration `json:"weights_ns"`
	Err    string        `json:"error,omitempty"`
}

// DeviceReport is what a run of Device found.
type DeviceReport struct {
	GPU      string      `json:"gpu"`
	Name     string      `json:"model"`
	Versions string      `json:"versions"`
	ReadRate float64     `json:"read_bytes_per_s"`
	Products float64     `json:"product_ops_per_s"` // of the largest matrix with Chunk rows
	Chunk    int         `json:"chunk"`
	Prefills []PromptRow `json:"prefills"`
	Rows     []DeviceRow `json:"rows"`
	MadeUp   []string    `json:"made_up,omitempty"` // formats whose calibration is made up
}

// Device times prefill and decoding on a GPU: greedy, from the step's inputs to its
// tokens on the host. Depth comes from repeating the pages of a short text, into pages of
// their own. What there is no memory for is a row with an error.
func Device(ctx context.Context, o DeviceOptions) (*DeviceReport, error) {
	r := &DeviceReport{GPU: o.GPU.Info().Name, Versions: o.GPU.Versions()}
	for _, format := range o.Formats {
		if o.makesUp(format) {
			r.MadeUp = append(r.MadeUp, format)
		}
	}
	var err error
	if r.ReadRate, err = o.Model.ReadRate(); err != nil {
		return nil, err
	}
	if err := o.prefills(ctx, r); err != nil {
		return nil, err
	}
	for _, depth := range o.Depths {
		for _, batch := range o.Batches {
			for _, format := range o.Formats {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				o.log("decoding %d sequences at %d tokens, %s", batch, depth, format)
				row, err := o.decode(format, depth, batch, r.ReadRate)
				if err != nil {
					row.Err = err.Error()
				}
				r.Rows = append(r.Rows, row)
			}
		}
	}
	return r, nil
}

func (o *DeviceOptions) log(format string, args ...any) {
	if o.Log != nil {
		o.Log(fmt.Sprintf(format, args...))
	}
}

// deviceWarm steps are not counted: in them graphs are made.
const deviceWarm = 4

func (o *DeviceOptions) decode(format string, depth, batch int, rate float64) (row DeviceRow, err error) {
	row = DeviceRow{Format: format, Depth: depth, Batch: batch}
	g, cal, err := o.layOut(format)
	if err != nil {
		return row, err
	}
	f := g.Format
	depth = max(depth/f.PageTokens, seedTokens/f.PageTokens) * f.PageTokens
	row.Depth = depth
	most := depth + o.Steps + deviceWarm + f.PageTokens
	each := int64(most/f.PageTokens+1) * int64(g.CodedPage())
	if !f.Coded() {
		each = int64(most/f.PageTokens+1) * int64(g.ExactPage())
	} else {
		each += 6 * int64(g.ExactPage())
	}
	seed := 12 * int64(g.ExactPage()+g.CodedPage())
	free, err := o.GPU.FreeMemory()
	if err != nil {
		return row, err
	}
	if batch == 0 {
		room := free - seed - 1<<30
		batch = int(room / (each + 16*int64(o.Config.VocabSize)))
		if batch > 8 {
			batch = batch / 8 * 8
		}
		row.Batch = batch
	}
	if need := each*int64(batch) + seed; batch < 1 || need > free {
		return row, fmt.Errorf("%d MiB of KV, %d MiB are free", need>>20, free>>20)
	}
	run, err := o.Model.NewRunner(g, cal, device.RunnerOptions{Rows: max(seedTokens+1, batch), Sequences: max(batch, 1), Context: most, NoGraphs: o.NoGraphs})
	if err != nil {
		return row, err
	}
	defer run.Close()
	t, err := newTexts(run, o.Config, each*int64(batch)+seed, depth, batch)
	if err != nil {
		return row, err
	}
	times, err := t.decode(o.Steps)
	if err != nil {
		return row, err
	}
	s := sampleOf(times)
	row.Median, row.Low, row.High = s.Median, s.Low, s.High
	row.Rate = float64(batch) / s.Median.Seconds()
	read := func(bytes int64) time.Duration { return time.Duration(float64(bytes) / rate * 1e9) }
	weights := o.Model.Bytes()
	if !o.Config.Tied {
		weights -= 2 * int64(o.Config.VocabSize) * int64(o.Config.Hidden) // of the input embedding, a row each
	}
	row.Weight = read(weights)
	row.Floor = read(weights + int64(batch)*readBytes(g, depth))
	return row, nil
}

// readBytes is what one query of n tokens reads of the cache.
func readBytes(g *quant.Geometry, n int) int64 {
	f := g.Format
	token := int64(g.ExactBytes() / f.PageTokens)
	if !f.Coded() {
		return int64(n) * token * int64(g.Layers)
	}
	from, _ := f.ExactFrom(n)
	sinks := min(f.Sinks, n)
	coded := int64(max(0, from-sinks)/f.PageTokens) * int64(g.CodedPage())
	return coded + int64(g.Layers)*int64(sinks+n-max(from, sinks))*token
}

// texts are sequences on a GPU.
type texts struct {
	run    *device.Runner
	cache  *kvcache.Cache
	pages  model.Pages
	tables []kvcache.Table
	views  []quant.View
	batch  model.Batch
	n      int // tokens of each
	last   []terse.Token
}

// newTexts fills the caches of batch sequences to a depth.
func newTexts(run *device.Runner, c *model.Config, memory int64, depth, batch int) (*texts, error) {
	t := &texts{run: run, n: depth, tables: make([]kvcache.Table, batch), views: make([]quant.View, batch), last: make([]terse.Token, batch)}
	var err error
	if t.cache, err = kvcache.New(run.Geometry(), memory); err != nil {
		return nil, err
	}
	if t.pages, err = run.Pages(t.cache); err != nil {
		return nil, err
	}
	var seed kvcache.Table
	var from quant.View
	ids := make([]terse.Token, seedTokens)
	r := rand.New(rand.NewPCG(1, 1))
	for i := range ids {
		ids[i] = terse.Token(r.IntN(c.VocabSize))
	}
	if !t.cache.Grow(&seed, seedTokens, seedTokens) {
		return nil, fmt.Errorf("cannot hold %d tokens in %d bytes of KV memory", seedTokens, memory)
	}
	t.pages.View(&seed, seedTokens, &from)
	t.batch.Append(ids, &from, 0)
	if _, err := run.Step(&t.batch); err != nil {
		return nil, err
	}
	page := run.Geometry().Format.PageTokens
	for i := range t.tables {
		if !t.cache.Reserve(&t.tables[i], depth) {
			return nil, fmt.Errorf("cannot hold %d sequences of %d tokens in %d bytes of KV memory", batch, depth, memory)
		}
		t.pages.View(&t.tables[i], depth, &t.views[i])
		for p := range depth / page {
			if err := run.CopyPage(&t.views[i], p, &from, min(p, 1+max(0, p-1)%(seedTokens/page-1))); err != nil {
				return nil, err
			}
		}
		t.last[i] = terse.Token(1 + i)
	}
	return t, nil
}

// decode decodes steps tokens of each sequence; the times are of steps.
func (t *texts) decode(steps int) ([]float64, error) {
	var times []float64
	for i := range deviceWarm + steps {
		start := time.Now()
		t.batch.Reset()
		for k := range t.tables {
			if !t.cache.Grow(&t.tables[k], t.n+1, t.n) {
				return nil, fmt.Errorf("the KV memory ends at %d tokens of %d sequences", t.n, len(t.tables))
			}
			t.pages.View(&t.tables[k], 0, &t.views[k])
			t.batch.Append(t.last[k:k+1], &t.views[k], t.n)
			t.batch.WantBest()
		}
		res, err := t.run.Step(&t.batch)
		if err != nil {
			return nil, err
		}
		t.n++
		for k, best := range res.Tokens {
			t.last[k] = terse.Token(best)
			t.cache.Trim(&t.tables[k], t.n, 0)
		}
		if i >= deviceWarm {
			times = append(times, float64(time.Since(start).Nanoseconds()))
		}
	}
	return times, nil
}

// RandomWeights are weights of a shape to time: bfloat16, normal, all of them
// views of the same bytes.
func RandomWeights(c model.Config) *model.Weights {
	largest := max(c.VocabSize, c.Intermediate, c.Heads*c.HeadDim) * c.Hidden
	r := rand.New(rand.NewPCG(1, 7))
	data := make([]byte, 2*largest)
	const first = 1 << 20
	for i := range min(first, largest) {
		binary.LittleEndian.PutUint16(data[2*i:], tensor.F32ToBF16(float32(r.NormFloat64()*0.02)))
	}
	for n := 2 * first; n < len(data); n *= 2 {
		copy(data[n:], data[:n])
	}
	return model.Synthetic(c, func(out, in int) tensor.Tensor {
		return tensor.Tensor{Name: "random", DType: tensor.BF16, Shape: []int{out, in}, Data: data[:2*out*in]}
	})
}

// JSON writes the report for machines.
func (r *DeviceReport) JSON(w io.Writer) error { return writeJSON(w, r) }

// Table writes the report for people.
func (r *DeviceReport) Table(w io.Writer) error {
	fmt.Fprintf(w, "%s, %s, reads %.2f TB/s\nmodel %s\n", r.GPU, r.Versions, r.ReadRate/1e12, r.Name)
	if len(r.MadeUp) > 0 {
		fmt.Fprintf(w, "made-up calibration, times only: %s\n", strings.Join(r.MadeUp, " "))
	}
	fmt.Fprintln(w)
	r.prefillTable(w)
	if len(r.Rows) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "kv\ttokens\tsequences\ttokens/s\ta step\tquartiles\tfloor\tof floor\tweights alone")
	for _, row := range r.Rows {
		if row.Err != "" {
			fmt.Fprintf(t, "%s\t%d\t%d\t-\t%s\n", row.Format, row.Depth, row.Batch, row.Err)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s-%s\t%s\t%.2fx\t%s\n", row.Format, row.Depth, row.Batch, number(row.Rate), span(row.Median),
			span(row.Low), span(row.High), span(row.Floor), float64(row.Median)/float64(row.Floor), span(row.Weight))
	}
	return t.Flush()
}
