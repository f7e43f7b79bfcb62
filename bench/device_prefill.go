package bench

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"text/tabwriter"
	"time"

	"github.com/terse-llm/terse"
	"github.com/terse-llm/terse/kvcache"
	"github.com/terse-llm/terse/model"
	"github.com/terse-llm/terse/model/device"
	"github.com/terse-llm/terse/quant"
)

// PromptRow is one prefill speed on a GPU.
type PromptRow struct {
	Format string        `json:"kv"`
	Tokens int           `json:"tokens"`
	Rate   float64       `json:"tokens_per_s"`
	Ops    float64       `json:"ops_per_s"` // products and causal attention
	Median time.Duration `json:"median_ns"`
	Low    time.Duration `json:"quartile1_ns"`
	High   time.Duration `json:"quartile3_ns"`
	Floor  time.Duration `json:"floor_ns"` // all operations at the rate of the largest product
	Coding float64       `json:"coding"`   // the share of the time spent on storing and coding K and V
	Err    string        `json:"error,omitempty"`
}

// prefills times prompts of random tokens in chunks, each from its first step's
// inputs to its last one's token on the host.
func (o *DeviceOptions) prefills(ctx context.Context, r *DeviceReport) (err error) {
	if len(o.Prompts) == 0 {
		return nil
	}
	r.Chunk = o.Chunk
	if r.Products, err = o.Model.ProductRate(o.Chunk); err != nil {
		return err
	}
	for _, n := range o.Prompts {
		for _, format := range o.Formats {
			if err := ctx.Err(); err != nil {
				return err
			}
			o.log("prefilling %d tokens, %s", n, format)
			row, err := o.prefill(format, n)
			if err != nil {
				row.Err = err.Error()
			}
			row.Ops = o.Model.Operations(n) / max(row.Median.Seconds(), 1e-9)
			row.Floor = time.Duration(o.Model.Operations(n) / r.Products * 1e9)
			r.Prefills = append(r.Prefills, row)
		}
	}
	return nil
}

func (o *DeviceOptions) prefill(format string, n int) (row PromptRow, err error) {
	row = PromptRow{Format: format, Tokens: n}
	g, cal, err := o.layOut(format)
	if err != nil {
		return row, err
	}
	f := g.Format
	run, err := o.Model.NewRunner(g, cal, device.RunnerOptions{Rows: min(n, o.Chunk), Sequences: 1, Context: n})
	if err != nil {
		return row, err
	}
	defer run.Close()
	pages := int64(n/f.PageTokens + 2)
	cache, err := kvcache.New(g, pages*int64(g.ExactPage()+g.CodedPage()))
	if err != nil {
		return row, err
	}
	memory, err := run.Pages(cache)
	if err != nil {
		return row, err
	}
	ids := make([]terse.Token, n)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range ids {
		ids[i] = terse.Token(random.IntN(o.Config.VocabSize))
	}
	var times []float64
	var coding time.Duration
	for i := range o.Rounds + 1 {
		start := time.Now()
		spent, err := promptOnce(run, cache, memory, ids, o.Chunk)
		if err != nil {
			return row, err
		}
		if i > 0 { // in the first cuBLASLt chooses how to compute
			times, coding = append(times, float64(time.Since(start).Nanoseconds())), coding+spent
		}
	}
	s := sampleOf(times)
	row.Median, row.Low, row.High = s.Median, s.Low, s.High
	row.Rate = float64(n) / s.Median.Seconds()
	row.Coding = float64(coding) / float64(o.Rounds) / float64(s.Median)
	return row, nil
}

// promptOnce computes a prompt, forgets it, and gives the time spent on coding.
func promptOnce(run *device.Runner, cache *kvcache.Cache, memory model.Pages, ids []terse.Token, chunk int) (coding time.Duration, err error) {
	var t kvcache.Table
	var v quant.View
	var b model.Batch
	defer cache.Free(&t)
	for at := 0; at < len(ids); {
		end := min(len(ids), at+chunk)
		if !cache.Grow(&t, end, len(ids)) {
			return 0, fmt.Errorf("the KV memory ends at %d tokens", at)
		}
		memory.View(&t, len(ids), &v)
		b.Reset()
		b.Append(ids[at:end], &v, at)
		if end == len(ids) {
			b.WantBest()
		}
		res, err := run.Step(&b)
		if err != nil {
			return 0, err
		}
		coding += res.Stats.Quantise
		at = end
		cache.Trim(&t, at, len(ids))
	}
	return coding, nil
}

func (r *DeviceReport) prefillTable(w io.Writer) {
	if len(r.Prefills) == 0 {
		return
	}
	fmt.Fprintf(w, "prefill in chunks of %d; the largest product alone: %.0f TFLOP/s\n\n", r.Chunk, r.Products/1e12)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "kv\ttokens\ttokens/s\ttime\tquartiles\tTFLOP/s\tfloor\tof floor\tcoding")
	for _, row := range r.Prefills {
		if row.Err != "" {
			fmt.Fprintf(t, "%s\t%d\t-\t%s\n", row.Format, row.Tokens, row.Err)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s-%s\t%.0f\t%s\t%.2fx\t%.1f %%\n", row.Format, row.Tokens, number(row.Rate), span(row.Median),
			span(row.Low), span(row.High), row.Ops/1e12, span(row.Floor), float64(row.Median)/float64(row.Floor), 100*row.Coding)
	}
	t.Flush()
	fmt.Fprintln(w)
}
